"""What both of the miniature's builds leave beside the weights: training curves and the files' digests."""

import json
import shutil
from pathlib import Path

from editar.io.digests import file_digest


def save_curve(stage: Path, curves: Path) -> None:
    """Copy the curve of the training in the folder `stage` to `curves`, and say how long it took."""
    curve = stage / "metrics.jsonl"
    curves.mkdir(parents=True, exist_ok=True)
    shutil.copy(curve, curves / f"{stage.name}.jsonl")
    seconds = sum(json.loads(line)["seconds"] for line in curve.read_text().splitlines())
    print(f"{stage.name}: trained for {seconds / 60:.1f} minutes")


def write_digests(weights: Path) -> None:
    """digests.json: sha256 of every weights file below the folder `weights`."""
    files = sorted(weights.rglob("*.safetensors"))
    digests = {file.relative_to(weights).as_posix(): file_digest(file) for file in files}
    (weights / "digests.json").write_text(json.dumps(digests, indent=1) + "\n")
