"""The files of a benchmark's report: tables as Markdown, LaTeX, CSV and HTML, plots as PNG and PDF."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from editar.io.atomic import write_text
from reports.plots.style import plot_files, save
from reports.runs import Run
from reports.tables.cost import write_cost
from reports.tables.format import latex_document, to_csv, to_html, to_latex, to_markdown
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
    for page in pages.keys() - filled.keys():
        for kind in KINDS:
            (out / f"{page}.{kind}").unlink(missing_ok=True)
    written.append(write_document(out))
    written += write_cost(runs, out, name)
    for plot, figure in plots.items():
        if figure is not None:
            written += save(figure, out / plot, keep=same)
        else:
            for path in plot_files(out / plot):
                path.unlink(missing_ok=True)
    return written


def write_document(out: Path) -> Path:
    """The LaTeX document of all tables in the folder; returns its path."""
    names = sorted(path.stem for pattern in IN_DOCUMENT for path in out.glob(pattern))
    return write_text(out / DOCUMENT, latex_document(names))
