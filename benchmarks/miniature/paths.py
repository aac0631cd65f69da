"""Where the miniature keeps its files."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"  # committed
BUILD = Path("runs") / "miniature-build"  # checkpoints and token shards of the build
