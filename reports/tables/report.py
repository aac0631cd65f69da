"""A benchmark's report: tables as Markdown, LaTeX, CSV and HTML, plots as PNG and PDF, and what each method took.

The cost differs from run to run and stands in files of its own; the tables of scores do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.runs.schema import Cost
from editar.io.atomic import write_text
from reports.plots.style import PLOT_KINDS, save
from reports.runs import Run
from reports.tables.format import (
    csv_table,
    latex_document,
    markdown_table,
    markdown_text,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
)
from reports.tables.model import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("md", "tex", "csv", "html")
DOCUMENT = "tables.tex"  # shows all tables of its folder
IN_DOCUMENT = ("piebench*.tex", "translation-*.tex", "ablation-*.tex")


def write_report(
    runs: Sequence[Run],
    pages: Mapping[str, Sequence[Table]],
    plots: Mapping[str, "Figure | None"],
    out: Path,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Writes each page in all KINDS, the LaTeX document, what the runs took, and each plot; returns the files written.

    pages: the first, which shows the plots, has the benchmark's name. Of a page without tables and a plot that is None
    the files of an earlier rendering are removed. notes: are put below the first table of each page. A PNG is left as
    it is where the pages stay the same and it would look the same.
    """
    out.mkdir(parents=True, exist_ok=True)
    name = next(iter(pages))
    filled = {page: tables for page, tables in pages.items() if tables}
    written = []
    same = True
    for page, tables in filled.items():
        tables = [replace(tables[0], notes=(*tables[0].notes, *notes)), *tables[1:]]
        drawn = [plot for plot, figure in plots.items() if figure is not None and page == name]
        texts = {
            "md": "\n".join(map(to_markdown, tables)),
            "tex": "\n".join(map(to_latex, tables)),
            "csv": to_csv(tables),
            "html": to_html(tables, page, list(filled), drawn),
        }
        markdown = out / f"{page}.md"
        same = same and markdown.is_file() and markdown.read_text("utf-8") == texts["md"]
        written += [write_text(out / f"{page}.{kind}", texts[kind]) for kind in KINDS]
    stale = [out / f"{page}.{kind}" for page in pages.keys() - filled.keys() for kind in KINDS]
    stale += [out / f"{plot}.{kind}" for plot, figure in plots.items() if figure is None for kind in PLOT_KINDS]
    for path in stale:
        path.unlink(missing_ok=True)
    written.append(write_document(out))
    written += write_cost(runs, out, name)
    for plot, figure in plots.items():
        if figure is not None:
            written += save(figure, out / plot, keep=same)
    return written


def write_document(out: Path) -> Path:
    """The LaTeX document of all tables in the folder; returns its path."""
    names = sorted(path.stem for pattern in IN_DOCUMENT for path in out.glob(pattern))
    return write_text(out / DOCUMENT, latex_document(names))


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
