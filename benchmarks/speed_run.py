"""What the speed benchmarks share: weights where there are none, the way of a measurement, where the figures go."""

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch


class Settings(Protocol):
    """A frozen dataclass. weights: a folder, made where it does not exist. threads: torch's. out: a JSON file."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def weights(self) -> Path: ...

    @property
    def threads(self) -> int: ...

    @property
    def out(self) -> Path | None: ...


def run_speed(
    settings: Settings,
    write_weights: Callable[[Path], Path],
    measure: Callable[[], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
) -> None:
    """Measures, prints the report, and writes the figures with the machine and the settings.

    write_weights: writes random weights into a folder, which it returns. report: of the figures as text.
    """
    torch.set_num_threads(settings.threads)
    if not settings.weights.is_dir():
        print(f"writing random weights to {settings.weights}", flush=True)
        unfinished = settings.weights.with_name(settings.weights.name + ".part")
        write_weights(unfinished).rename(settings.weights)
    machine = {
        "platform": platform.platform(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    figures = {"machine": machine, "settings": asdict(settings), **measure()}
    print(report(figures))
    if settings.out is not None:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(json.dumps(figures, indent=1, default=str) + "\n")
