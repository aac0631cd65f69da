"""The embedded suite: a procedural world with exact ground truth, and small networks really trained on it."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"  # committed
BUILD = Path("runs") / "miniature-build"  # checkpoints and token shards of the build
