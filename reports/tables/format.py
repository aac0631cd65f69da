"""Tables as Markdown, LaTeX, CSV and HTML (page.html, which stands alone: no script, nothing from a network).

Labels come from users, so every text that is printed is escaped for where it goes.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.tables.model import Block, Mark, Row, Table, number, scale_and_direction
from reports.tables.statistics import Estimate

if TYPE_CHECKING:
    from jinja2 import Template

FORMULA = ("=", "+", "-", "@")  # how one begins
LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # \textquotedbl needs T1 fonts
    "-": "-{}",  # keeps -- from becoming a dash
    "'": "'{}",
    "`": "`{}",
    **{character: "\\" + character for character in "{}$&#%_"},
}


def one_line(text: str) -> str:
    """White space collapsed and control characters dropped: a table cell is one line of print."""
    kept = (c if unicodedata.category(c)[0] != "C" else " " for c in text)
    return " ".join("".join(kept).split())


def markdown_text(text: str) -> str:
    """For use within a line or a cell: backslashes before all that GitHub reads as markup there, entities for < > &."""
    text = re.sub(r"([\\`*_\[\]|~$]|:(?=\w+:))", r"\\\1", one_line(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex_text(text: str) -> str:
    """Latin letters pass; what pdfLaTeX has no glyphs for falls back to its ASCII form or a question mark."""
    characters = []
    for character in unicodedata.normalize("NFC", one_line(text)):
        if character < "\x7f" or "\xc0" <= character <= "\xff":
            characters.append(character)
        else:
            characters += unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
    return "".join(LATEX_ESCAPES.get(character, character) for character in characters)


def csv_text(text: str) -> str:
    """A leading apostrophe keeps spreadsheets from running a label as a formula, in full-width characters too.

    Tabs and line ends, which some take for the beginning of one as well, are spaces already.
    """
    text = one_line(text)
    return "'" + text if unicodedata.normalize("NFKC", text[:1]).startswith(FORMULA) else text


def html_text(text: str) -> str:
    """For use between tags and within a quoted attribute."""
    return html.escape(one_line(text))


CSV_FACTS = ("source", "suite", "protocol", "precision", "seed", "dataset_digest", "edit_type")
CSV_FIELDS = (
    *("block", "method", "published_as", "kind", "done", "expected", "column", "direction", "scale"),
    *("mean", "low", "high", "n", "p", "p_holm", "p_best", "note"),
    *CSV_FACTS,
)
CSV_DIGITS = 9  # what comes after them differs from processor to processor
PAGE_ROWS = 20  # of two lines each


@dataclass(frozen=True, kw_only=True)
class Markup:
    """How a format writes what a table prints. bold, underlined: with {} for the text. text: escapes."""

    text: Callable[[str], str]
    bold: str
    underlined: str
    missing: str = "–"

    def mean(self, estimate: Estimate, mark: Mark | None = None) -> str:
        """As in the paper, the best bold and the second underlined."""
        if estimate.mean is None:
            return self.missing
        text = number(estimate.mean)
        return {"best": self.bold, "clear": self.bold, "second": self.underlined, None: "{}"}[mark].format(text)

    def rows(self, table: Table, block: Block) -> Iterator[tuple[Row, list[tuple[str, list[str]]]]]:
        """Each row with its cells: the mean, and the details that stand below or after it."""
        marks = table.marks(block)
        for r, row in enumerate(block.rows):
            means = [self.mean(estimate, marks.get((r, c))) for c, estimate in enumerate(row.estimates)]
            yield row, [(mean, details(row, e)) for mean, e in zip(means, row.estimates, strict=True)]


MARKDOWN = Markup(text=markdown_text, bold="**{}**", underlined="<ins>{}</ins>")
LATEX = Markup(text=latex_text, bold=r"\textbf{{{}}}", underlined=r"\underline{{{}}}", missing="--")
HTML = Markup(text=html_text, bold="<b>{}</b>", underlined="<u>{}</u>")


def details(row: Row, estimate: Estimate) -> list[str]:
    """The interval, the corrected p-value, and the count where the column has fewer values than the row has images."""
    parts = []
    if estimate.low is not None and estimate.high is not None:
        parts.append(f"[{number(estimate.low)}, {number(estimate.high)}]")
    if estimate.p_holm is not None:
        parts.append(f"p={estimate.p_holm:.4f}")
    if estimate.n is not None and estimate.n != row.done:
        parts.append(f"(n={estimate.n})")
    return parts


def to_markdown(table: Table) -> str:
    titles = (f"{markdown_text(column.full_title)}{scale_and_direction(column)}" for column in table.columns)
    head = ["Method", "Kind", *titles, "n"]
    rows: list[Sequence[str]] = []
    for block in table.blocks:
        rows.append([f"**{markdown_text(block.label)}**", *[""] * (len(head) - 1)])
        for row, cells in MARKDOWN.rows(table, block):
            texts = (" ".join([mean, *more]) for mean, more in cells)
            rows.append([markdown_text(row.label), markdown_text(row.kind), *texts, row.samples])
    notes = "".join(f"- {markdown_text(note)}\n" for note in table.legend)
    lines = markdown_table(head, rows, numbers=range(2, len(head)))
    return f"{markdown_text(table.caption)}\n\n{lines}\n" + (f"\n{notes}" if notes else "")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Of escaped cells. numbers: the columns that stand to the right."""
    rule = ["---:" if column in numbers else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def to_latex(table: Table) -> str:
    r"""A `table*` to \input into a document that loads booktabs and graphicx; one a block if a page is too short."""
    if len(table.blocks) > 1 and sum(len(block.rows) + 1 for block in table.blocks) > PAGE_ROWS:
        pages = (replace(table, blocks=(block,), caption=f"{block.label}: {table.caption}") for block in table.blocks)
        return "\n".join(map(to_latex, pages))
    caption = " ".join([table.caption, *table.legend])
    return _template("table.tex.jinja").render(table=table, caption=caption, rows=LATEX.rows)


def latex_document(names: Sequence[str]) -> str:
    r"""A document that shows the tables of the files `names`, and the packages that they need."""
    return _template("document.tex.jinja").render(names=names)


def to_csv(tables: Sequence[Table]) -> str:
    """One line for each method and column, in the scale of the table, with CSV_DIGITS significant digits."""
    lines = [
        line for table in tables for block in table.blocks for row in block.rows for line in _csv(table, block, row)
    ]
    return csv_table(lines, CSV_FIELDS)


def csv_table(lines: Sequence[Mapping[str, object]], fields: Sequence[str]) -> str:
    """Texts are escaped; what a line lacks is empty."""
    escaped = [{k: csv_text(v) if isinstance(v, str) else v for k, v in line.items()} for line in lines]
    return pd.DataFrame(escaped, columns=list(fields), dtype=object).to_csv(index=False, lineterminator="\n")


def _csv(table: Table, block: Block, row: Row) -> Iterator[dict[str, object]]:
    for column, estimate in zip(table.columns, row.estimates, strict=True):
        yield {
            **{"block": block.label, "method": row.label, "published_as": row.published_as, "kind": row.kind},
            **{"done": row.done, "expected": row.expected, "column": column.full_title},
            "direction": "higher is better" if column.higher_is_better else "lower is better",
            "scale": 10**column.power,
            **{name: _rounded(getattr(estimate, name)) for name in ("mean", "low", "high", "p", "p_holm", "p_best")},
            **{"n": estimate.n, "note": estimate.note},
            **block.facts,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{CSV_DIGITS}g}")


def to_html(tables: Sequence[Table], name: str, pages: Sequence[str], plots: Sequence[str]) -> str:
    """The page `name`.html. pages: names of those beside it. plots: names of those there, each a .png and a .pdf."""
    title = tables[0].caption.partition(".")[0]
    return _template("page.html").render(
        title=title, tables=tables, name=name, pages=pages, plots=plots, rows=HTML.rows
    )


@cache
def _template(name: str) -> "Template":
    """Of this folder. Its filter `text` escapes; in LaTeX, where braces and % are common, tags are << >> and <% %>."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    latex = {
        **{"block_start_string": "<%", "block_end_string": "%>", "keep_trailing_newline": True},
        **{"variable_start_string": "<<", "variable_end_string": ">>"},
        **{"comment_start_string": "<#", "comment_end_string": "#>"},
    }
    options: dict[str, Any] = latex if ".tex" in name else {}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, **options)
    environment.filters |= {"text": latex_text if options else html_text, "scale": scale_and_direction}
    return environment.get_template(name)
