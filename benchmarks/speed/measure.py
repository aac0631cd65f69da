"""What the speed benchmarks share: their settings, taking turns, random weights, and where the figures go."""

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from editar.io.atomic import replacing_folder, write_text

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """What every speed benchmark can be told."""

    threads: int = 2
    out: Path | None = None
    """Write the figures as JSON to this file too."""


def take_turns(ways: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What each way returns, round by round. In a round all take their turn, so that a busy machine disturbs them
    alike."""
    taken: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    return taken


def ensure_weights(folder: Path, write: Callable[[Path], object]) -> Path:
    """The folder, with the random weights that `write` puts into it if there is none."""
    if not folder.is_dir():
        print(f"writing random weights to {folder}", flush=True)
        with replacing_folder(folder) as unfinished:
            write(unfinished)
    return folder


def report_speed(
    settings: SpeedSettings, measure: Callable[[], dict[str, Any]], report: Callable[[dict[str, Any]], str]
) -> None:
    """Measures, prints the report, and writes the figures with the machine and the settings. report: of the figures as
    text."""
    torch.set_num_threads(settings.threads)
    figures = {"machine": machine(getattr(settings, "device", "cpu")), "settings": asdict(settings), **measure()}
    print(report(figures))
    if settings.out is not None:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(settings.out, json.dumps(figures, indent=1, default=str) + "\n")


def in_words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def table(columns: Mapping[str, Mapping[str, float]], formats: Mapping[str, str]) -> str:
    """A table as text. columns: values by row, by heading; a row may lack some. formats: of the columns."""
    from pandas import DataFrame

    formatters = {name: f"{{:{spec}}}".format for name, spec in formats.items()}
    return DataFrame(columns).to_string(formatters=formatters, na_rep="")


def machine(device: str) -> dict[str, str]:
    """What the figures were measured on."""
    on_gpu = torch.device(device).type == "cuda"
    return {
        "platform": platform.platform(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine(),
    }
