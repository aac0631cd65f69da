"""Tables and their plots as an HTML page that stands alone: no script, nothing from a network, light and dark."""

from collections.abc import Sequence
from pathlib import Path

from reports.tables.markup import details, html_text, mean_text, scale_and_direction
from reports.tables.model import Block, Column, Mark, Row, Table

STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --faint: #656d76; --band: #f6f8fa; --page: #fff; --ink: #1f2328; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --faint: #9198a1; --band: #151b23; --page: #0d1117; --ink: #e6edf3; }
}
body { margin: 2rem auto; padding: 0 1.5rem; max-width: 95rem; color: var(--ink); background: var(--page);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; }
nav { margin-bottom: 1.5rem; }
nav a { margin-right: 1rem; }
nav a[aria-current] { color: inherit; font-weight: 600; text-decoration: none; }
a { color: #0969da; }
@media (prefers-color-scheme: dark) { a { color: #4493f8; } }
section { margin-bottom: 2.5rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
tbody:last-child tr:last-child > * { border-bottom: 0; }
thead th { text-align: right; vertical-align: bottom; background: var(--band); }
th.text, td.text { text-align: left; }
th[scope=row] { position: sticky; left: 0; background: var(--page); text-align: left; font-weight: 500;
  white-space: nowrap; }
th[scope=rowgroup] { text-align: left; background: var(--band); }
td { text-align: right; white-space: nowrap; }
small { display: block; color: var(--faint); font-size: 12px; font-weight: 400; }
tr.reference > * { color: var(--faint); }
b { font-weight: 700; }
u { text-underline-offset: 3px; }
.notes { color: var(--faint); padding-left: 1.2rem; }
figure { margin: 0 0 2rem; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption { color: var(--faint); }
"""


def to_html(tables: Sequence[Table], name: str, pages: Sequence[str], figures: Sequence[str]) -> str:
    """The page `name`.html. pages: names of those beside it. figures: names of plots there, each a .png and a .pdf."""
    title = html_text(tables[0].caption.partition(".")[0])
    current = ' aria-current="page"'
    links = (f'<a href="{html_text(p)}.html"{current if p == name else ""}>{html_text(p)}</a>' for p in pages)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            f"<h1>{title}</h1>",
            f"<nav>{''.join(links)}</nav>",
            *(_table(table) for table in tables),
            *(_figure(figure) for figure in figures),
            "</body>",
            "</html>",
            "",
        ]
    )


def _figure(name: str) -> str:
    name = html_text(Path(name).name)
    image = f'<img src="{name}.png" alt="The values of the tables as a plot: {name}">'
    return f'<figure>{image}<figcaption><a href="{name}.pdf">{name}.pdf</a></figcaption></figure>'


def _table(table: Table) -> str:
    heads = [_head("Method", True), _head("Kind", True), *map(_column, table.columns), _head("n")]
    lines = ["<section>", f"<p>{html_text(table.caption)}</p>", '<div class="scroll"><table>']
    lines.append(f"<thead><tr>{''.join(heads)}</tr></thead>")
    for block in table.blocks:
        lines += ["<tbody>", f'<tr><th scope="rowgroup" colspan="{len(heads)}">{html_text(block.label)}</th></tr>']
        lines += [_row(table, block, r, row) for r, row in enumerate(block.rows)]
        lines.append("</tbody>")
    lines.append("</table></div>")
    if table.notes:
        lines += ['<ul class="notes">', *(f"<li>{html_text(note)}</li>" for note in table.notes), "</ul>"]
    return "\n".join([*lines, "</section>"])


def _head(text: str, left: bool = False) -> str:
    return f'<th scope="col"{" class=text" if left else ""}>{text}</th>'


def _column(column: Column) -> str:
    network = f"<small>{html_text(column.network)}</small>" if column.network else ""
    return _head(f"{html_text(column.title)}{scale_and_direction(column)}{network}")


def _row(table: Table, block: Block, number: int, row: Row) -> str:
    marks = table.marks(block)
    cells = [_cell(row, c, marks.get((number, c))) for c in range(len(row.estimates))]
    reference = ' class="reference"' if row.reference else ""
    return (
        f'<tr{reference}><th scope="row">{html_text(row.label)}</th><td class="text">{html_text(row.kind)}</td>'
        f"{''.join(cells)}<td>{html_text(row.samples)}</td></tr>"
    )


def _cell(row: Row, column: int, mark: Mark | None) -> str:
    estimate = row.estimates[column]
    text = mean_text(estimate, infinity="∞", missing="–")
    text = {"best": f"<b>{text}</b>", "clear": f"<b>{text}</b>", "second": f"<u>{text}</u>", None: text}[mark]
    below = "".join(f"<small>{html_text(detail)}</small>" for detail in details(row, estimate))
    return f"<td>{text}{below}</td>"
