"""What each method took, beside the tables of scores: it differs from run to run, and they do not."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.runs.schema import Cost
from editar.io.atomic import write_text
from reports.runs import Run
from reports.tables.escape import markdown_text
from reports.tables.format import csv_table, markdown_table

TITLES = {
    "method": "Method",
    "device": "Device",
    "images": "Images",
    "load_seconds": "Loading, s",
    "seconds_per_image": "Seconds an image",
    "peak_memory_bytes": "Peak memory, MB",
    "before_bytes": "of it held before, MB",
    "memory": "Memory",
}
NOTE = (
    "Measured while the method was loaded and at work, of the process; what it held before are mostly the scoring "
    "networks. An external method's own processes are not in its memory."
)


def write_cost(runs: Sequence[Run], out: Path, name: str) -> list[Path]:
    """Writes <name>-cost.md and .csv of the runs whose manifests have the cost; without any, removes old ones.

    There is no LaTeX file: tables.tex shows what is the same wherever it is measured.
    """
    lines = [_line(run, run.manifest.cost) for run in runs if run.manifest.cost is not None]
    paths = [out / f"{name}-cost.{kind}" for kind in ("md", "csv")]
    if not lines:
        for path in paths:
            path.unlink(missing_ok=True)
        return []
    rows = [[_cell(field, value) for field, value in line.items()] for line in lines]
    table = markdown_table(list(TITLES.values()), rows, numbers=range(2, len(TITLES) - 1))
    texts = (f"What making the images took.\n\n{table}\n\n- {NOTE}\n", csv_table(lines, list(TITLES)))
    return [write_text(path, text) for path, text in zip(paths, texts, strict=True)]


def _line(run: Run, cost: Cost) -> dict[str, object]:
    """By the names of TITLES, in their order."""
    device = run.manifest.device
    return {
        "method": run.method,
        "device": f"{device.type or ''} {device.name}".strip(),
        "images": cost.samples,
        "load_seconds": cost.load_seconds,
        "seconds_per_image": cost.seconds_per_sample,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "before_bytes": cost.before_bytes,
        "memory": cost.memory,
    }


def _cell(field: str, value: object) -> str:
    if field.endswith("_bytes"):
        return f"{int(str(value)) / 1e6:.0f}"
    if isinstance(value, float):
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return markdown_text(str(value))
