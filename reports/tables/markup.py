"""Tables as Markdown, LaTeX and CSV. Labels come from users, so every text is escaped for where it goes; HTML pages
(reports/tables/html.py) escape theirs here too."""

import csv
import html
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from reports.tables.model import Block, Column, Mark, Row, Table, number
from reports.tables.statistics import Estimate

CSV_FACTS = ("source", "suite", "protocol", "precision", "seed", "dataset_digest", "edit_type")
CSV_FIELDS = (
    *("block", "method", "published_as", "kind", "done", "expected", "column", "direction", "scale"),
    *("mean", "low", "high", "n", "p", "p_holm", "note"),
    *CSV_FACTS,
)

PAGE_ROWS = 20  # of two lines each
CSV_DIGITS = 9  # what comes after them differs from processor to processor
FORMULA = ("=", "+", "-", "@")  # how one begins

LATEX = {
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
    return "".join(LATEX.get(character, character) for character in characters)


def csv_text(text: str) -> str:
    """A leading apostrophe keeps spreadsheets from running a label as a formula, in full-width characters too.

    Tabs and line ends, which some take for the beginning of one as well, are spaces already.
    """
    text = one_line(text)
    return "'" + text if unicodedata.normalize("NFKC", text[:1]).startswith(FORMULA) else text


def html_text(text: str) -> str:
    """For use between tags and within a quoted attribute."""
    return html.escape(one_line(text))


def to_markdown(table: Table) -> str:
    head = ["Method", "Kind", *(_markdown_title(column) for column in table.columns), "n"]
    lines = [markdown_text(table.caption), "", _line(head), _line(["---", "---", *["---:"] * (len(head) - 2)])]
    for block in table.blocks:
        lines.append(_line([f"**{markdown_text(block.label)}**", *[""] * (len(head) - 1)]))
        marks = table.marks(block)
        for r, row in enumerate(block.rows):
            cells = [_markdown_cell(row, e, marks.get((r, c))) for c, e in enumerate(row.estimates)]
            lines.append(_line([markdown_text(row.label), markdown_text(row.kind), *cells, row.samples]))
    lines += ["", *(f"- {markdown_text(note)}" for note in table.notes)] if table.notes else []
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_title(column: Column) -> str:
    return f"{markdown_text(column.full_title)}{scale_and_direction(column)}"


def scale_and_direction(column: Column) -> str:
    """What follows a column's title wherever Unicode may stand."""
    power = f" ×10{''.join('⁰¹²³⁴⁵⁶⁷⁸⁹'[int(digit)] for digit in str(column.power))}" if column.power else ""
    return f"{power} {'↑' if column.higher_is_better else '↓'}"


def _markdown_cell(row: Row, estimate: Estimate, mark: Mark | None) -> str:
    text = mean_text(estimate, infinity="∞", missing="–")
    text = {"best": f"**{text}**", "clear": f"**{text}**", "second": f"<ins>{text}</ins>", None: text}[mark]
    return " ".join([text, *details(row, estimate)])


def mean_text(estimate: Estimate, *, infinity: str, missing: str) -> str:
    if estimate.mean is None:
        return missing
    return number(estimate.mean).replace("inf", infinity)


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


def to_latex(table: Table) -> str:
    r"""A `table*` to \input into a document that loads booktabs and graphicx; one a block if a page is too short."""
    if len(table.blocks) > 1 and sum(len(block.rows) + 1 for block in table.blocks) > PAGE_ROWS:
        pages = (replace(table, blocks=(block,), caption=f"{block.label}: {table.caption}") for block in table.blocks)
        return "\n".join(map(to_latex, pages))
    head = ["Method", "Kind", *(_latex_title(column) for column in table.columns), "n"]
    rows = []
    for block in table.blocks:
        rows.append(rf"\midrule \multicolumn{{{len(head)}}}{{l}}{{\emph{{{latex_text(block.label)}}}}} \\")
        marks = table.marks(block)
        for r, row in enumerate(block.rows):
            cells = [_latex_cell(row, e, marks.get((r, c))) for c, e in enumerate(row.estimates)]
            rows.append(" & ".join([latex_text(row.label), latex_text(row.kind), *cells, row.samples]) + r" \\")
    caption = latex_text(" ".join([table.caption, *table.notes]))
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{caption}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",  # shrinks only
            rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table*}",
            "",
        ]
    )


def latex_document(names: Sequence[str]) -> str:
    r"""A document that shows the tables of the files `names`, and the packages that they need."""
    inputs = "\n".join(rf"\input{{{name}}}" for name in names)
    return (
        "\\documentclass[10pt]{article}\n"
        "\\usepackage[landscape,margin=1.5cm]{geometry}\n"
        "\\usepackage[T1]{fontenc}\n"
        "\\usepackage{booktabs,graphicx}\n"
        "\\setlength{\\belowcaptionskip}{6pt}\n"
        f"\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )


def _latex_title(column: Column) -> str:
    power = rf" $\times 10^{{{column.power}}}$" if column.power else ""
    title = rf"{latex_text(column.title)}{power} $\{'uparrow' if column.higher_is_better else 'downarrow'}$"
    return _stacked(title, f"({latex_text(column.network)})" if column.network else "")


def _latex_cell(row: Row, estimate: Estimate, mark: Mark | None) -> str:
    text = mean_text(estimate, infinity=r"$\infty$", missing="--")
    bold = rf"\textbf{{{text}}}"
    text = {"best": bold, "clear": bold, "second": rf"\underline{{{text}}}", None: text}[mark]
    return _stacked(text, " ".join(details(row, estimate)))


def _stacked(upper: str, lower: str) -> str:
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{upper} \\ \scriptsize {lower}\end{{tabular}}" if lower else upper


def to_csv(tables: Sequence[Table]) -> str:
    """One line for each method and column, in the scale of the table, with CSV_DIGITS significant digits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for block in table.blocks:
            for row in block.rows:
                writer.writerows(_csv_lines(table, block, row))
    return out.getvalue()


def _csv_lines(table: Table, block: Block, row: Row) -> list[dict[str, object]]:
    return [
        {name: csv_text(value) if isinstance(value, str) else value for name, value in line.items()}
        for line in (
            {
                **{"block": block.label, "method": row.label, "published_as": row.published_as, "kind": row.kind},
                **{"done": row.done, "expected": row.expected, "column": column.full_title},
                "direction": "higher is better" if column.higher_is_better else "lower is better",
                "scale": 10**column.power,
                **{name: _rounded(getattr(estimate, name)) for name in ("mean", "low", "high", "p", "p_holm")},
                **{"n": estimate.n, "note": estimate.note},
                **block.facts,
            }
            for column, estimate in zip(table.columns, row.estimates, strict=True)
        )
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{CSV_DIGITS}g}")
