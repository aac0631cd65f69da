"""Ready recipes for `baselines/external.py`, and what they start: scripts for other environments, not for import."""

from pathlib import Path

MGIE = Path(__file__).with_name("mgie.toml")
