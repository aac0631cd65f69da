"""What both of the miniature's builds are made of: stages that run in their order, and what a stage leaves behind."""

import json
import shutil
import time
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editar.io.digests import file_digest
from editar.training.checkpoints import check_last
from editar.training.loop import TrainConfig
from editar.training.settings import build

SETTINGS = Path(__file__).parents[3] / "configs" / "miniature.toml"
Measured = Mapping[str, float] | None


def settings(name: str) -> TrainConfig:
    """How a stage is trained, as its table in SETTINGS says."""
    return build(TrainConfig, tomllib.loads(SETTINGS.read_text())[name], f"{SETTINGS}: {name}.")


def run_stages(stages: Mapping[str, Callable[[], Measured]], chosen: Collection[str], threads: int) -> None:
    """Run the chosen stages in their order, whatever order they were named in, and say how long each took and what it
    measured. threads: of the CPU, 0 for torch's choice. Raises ValueError for a stage that there is not."""
    if unknown := [stage for stage in chosen if stage not in stages]:
        raise ValueError(f"--stages {' '.join(unknown)}: must be of {' '.join(stages)}")
    if threads:
        torch.set_num_threads(threads)
    for stage, run in stages.items():
        if stage in chosen:
            print(f"stage {stage}", flush=True)
            started = time.perf_counter()
            values = "".join(f", {name} {value:.4f}" for name, value in (run() or {}).items())
            print(f"stage {stage}: {(time.perf_counter() - started) / 60:.1f} minutes{values}", flush=True)


def trained_weights(folder: Path, steps: int | None = None) -> dict[str, Tensor]:
    """The weights of the stage that the folder is named for. Raises ValueError if it has not been trained, or not to
    the end of `steps`."""
    path = folder / "last.pt"
    if path.exists():
        check_last(path)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True) if path.exists() else {"step": 0}
    if not state["step"] or steps not in (None, state["step"]):
        of = "" if steps is None else f" of {steps}"
        raise ValueError(f"{path} is at step {state['step']}{of}; train it to its end first (--stages {folder.name})")
    return state["model"]


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
