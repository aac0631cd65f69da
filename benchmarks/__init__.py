"""What a person starts. The commands of tools/ keep their short names: `python -m benchmarks.gallery`."""

from pathlib import Path

__path__.append(str(Path(__file__).parent / "tools"))
