"""What the speed benchmarks share: weights where there are none, the way of a measurement, where the figures go."""

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from editar.io.atomic import replacing_folder, write_text


class Settings(Protocol):
    """A frozen dataclass. threads: torch's. out: a JSON file."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def threads(self) -> int: ...

    @property
    def out(self) -> Path | None: ...


class WeightedSettings(Settings, Protocol):
    """weights: a folder, made where it does not exist."""

    @property
    def weights(self) -> Path: ...


def run_speed(
    settings: WeightedSettings,
    write_weights: Callable[[Path], Path],
    measure: Callable[[], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
) -> None:
    """As `report_speed`, with random weights where there are none: write_weights writes them into a folder, which it
    returns."""
    if not settings.weights.is_dir():
        print(f"writing random weights to {settings.weights}", flush=True)
        with replacing_folder(settings.weights) as folder:
            write_weights(folder)
    report_speed(settings, measure, report)


def report_speed(
    settings: Settings, measure: Callable[[], dict[str, Any]], report: Callable[[dict[str, Any]], str]
) -> None:
    """Measures, prints the report, and writes the figures with the machine and the settings. report: of the figures as
    text."""
    torch.set_num_threads(settings.threads)
    figures = {"machine": machine(), "settings": asdict(settings), **measure()}
    print(report(figures))
    if settings.out is not None:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(settings.out, json.dumps(figures, indent=1, default=str) + "\n")


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "platform": platform.platform(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
