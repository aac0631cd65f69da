"""What a GPU has to show, in one run of eight minutes at most: `python -m benchmarks.gpu_check`.

Right answers first, then speed and memory at the size of the paper's model, with random weights. Each part has a
process and a time of its own: one that fails or takes too long leaves the others alone, and what it had found by then
is kept. Only tried with `--device cpu --tiny` so far: no GPU has run it.
"""

import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import tyro

from benchmarks.tools.gpu_parts import decode, memory, parity, scoring, training, windows
from editar.devices import require_device
from editar.io.atomic import append_text, write_text

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Example: python -m benchmarks.gpu_check --device cpu --tiny

    Check and measure a GPU, the most important first.
    """

    out: Path = Path("runs/gpu")
    """Where results.jsonl and summary.md go."""
    device: str = "cuda"
    tiny: bool = False
    """Small networks, to try the check itself on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """rows: from the device, and whether networks are tiny, to results one by one. seconds: that it may take, its
    start included."""

    rows: Callable[[str, bool], Iterator[Row]]
    seconds: float


PARTS = {
    "parity": Part(rows=parity, seconds=60),
    "decoding": Part(rows=decode, seconds=120),
    "windows": Part(rows=windows, seconds=90),
    "scoring": Part(rows=scoring, seconds=90),
    "training": Part(rows=training, seconds=80),
    "memory": Part(rows=memory, seconds=40),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 where a part did not come to its end or an answer is wrong; 2 without the device."""
    settings = tyro.cli(Settings, args=arguments, prog="python -m benchmarks.gpu_check")
    try:
        require_device(settings.device)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if check(PARTS, settings) else 1


def check(parts: Mapping[str, Part], settings: Settings) -> bool:
    """Runs the parts in turn and writes each result as it comes. Whether all went well."""
    settings.out.mkdir(parents=True, exist_ok=True)
    write_text(settings.out / "results.jsonl", "")
    rows: list[Row] = []
    for name, part in parts.items():
        for found in results(part, settings):
            row = {"part": name, **found}
            rows.append(row)
            append_text(settings.out / "results.jsonl", json.dumps(row) + "\n")
            write_text(settings.out / "summary.md", summary(rows, device_name(settings.device)))
            print(json.dumps(row), flush=True)
    return not any("error" in row or row.get("right") is False for row in rows)


def results(part: Part, settings: Settings) -> Iterator[Row]:
    """What a part finds, in a process of its own; a row with "error" at its end where something went wrong."""
    context = multiprocessing.get_context("spawn")  # CUDA can't be used in a forked process
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(part.rows, settings.device, settings.tiny, there), daemon=True)
    end = time.monotonic() + part.seconds
    process.start()
    there.close()
    try:
        while here.poll(max(0.0, end - time.monotonic())):
            row = here.recv()
            if row is None:
                return
            yield row
        yield {"error": f"not done after {part.seconds:g} s"}
    except EOFError:
        process.join()
        yield {"error": f"the process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _send(rows: Callable[[str, bool], Iterator[Row]], device: str, tiny: bool, to: Connection) -> None:
    try:
        for row in rows(device, tiny):
            to.send(row)
    except Exception as error:  # of whatever kind: the other parts go on
        traceback.print_exc()
        to.send({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
    to.send(None)


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device


def summary(rows: Sequence[Row], device: str) -> str:
    """The results as Markdown."""
    lines = [f"# Check of {device}", "", "| part | result |", "|---|---|"]
    for row in rows:
        values = ", ".join(f"{key} {_short(value)}" for key, value in row.items() if key != "part")
        lines.append(f"| {row['part']} | {values} |")
    return "\n".join(lines) + "\n"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


if __name__ == "__main__":
    sys.exit(main())
