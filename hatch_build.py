"""Puts the miniature weights into the wheel, so that `python -m editar edit` works after a plain installation."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class MiniatureWeights(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """An editable installation reads the weights from the checkout, a copy would only grow stale."""
        weights = Path(self.root) / "benchmarks" / "miniature" / "weights" / "editar"
        if version != "editable" and weights.is_dir():
            build_data["force_include"][str(weights)] = "editar/weights"
