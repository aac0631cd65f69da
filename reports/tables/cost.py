"""What each method took, beside the tables of scores: it differs from run to run, and they do not."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from editar.io.atomic import write_text
from reports.runs import Run
from reports.tables.markup import csv_text, markdown_text

FIELDS = (
    "method", "device", "images", "load_seconds", "seconds_per_image", "peak_memory_bytes", "before_bytes", "memory",
)  # fmt: skip
TITLES = (
    "Method", "Device", "Images", "Loading, s", "Seconds an image", "Peak memory, MB", "of it held before, MB",
    "Memory",
)  # fmt: skip
NOTE = (
    "Measured while the method was loaded and at work, of the process; what it held before are mostly the scoring "
    "networks. An external method's own processes are not in its memory."
)


def write_cost(runs: Sequence[Run], out: Path, name: str) -> list[Path]:
    """Writes <name>-cost.md and .csv of the runs whose manifests have the cost; without any, removes old ones.

    There is no LaTeX file: tables.tex shows what is the same wherever it is measured.
    """
    lines = [line for run in runs if (line := _line(run))]
    paths = [out / f"{name}-cost.{kind}" for kind in ("md", "csv")]
    if not lines:
        for path in paths:
            path.unlink(missing_ok=True)
        return []
    return [write_text(path, text) for path, text in zip(paths, (_markdown(lines), _csv(lines)), strict=True)]


def _line(run: Run) -> dict[str, object] | None:
    cost, device = run.manifest.cost, run.manifest.device
    if cost is None:
        return None
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


def _markdown(lines: Sequence[dict[str, object]]) -> str:
    def cell(field: str, value: object) -> str:
        if field.endswith("_bytes"):
            return f"{int(str(value)) / 1e6:.0f}"
        if isinstance(value, float):
            return f"{value:.3g}" if value < 100 else f"{value:.0f}"
        return markdown_text(str(value))

    rows = [TITLES, tuple("---" if field in ("method", "device", "memory") else "---:" for field in FIELDS)]
    rows += [tuple(cell(field, line[field]) for field in FIELDS) for line in lines]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"What making the images took.\n\n{table}\n\n- {NOTE}\n"


def _csv(lines: Sequence[dict[str, object]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: csv_text(value) if isinstance(value, str) else value for name, value in line.items()} for line in lines
    )
    return out.getvalue()
