"""Labels of users in Markdown, LaTeX, CSV and HTML: what is read back, or printed, is the label."""

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reports.tables.format import csv_text, latex_document, latex_text, one_line, to_csv, to_html, to_latex, to_markdown
from reports.tables.model import Block, Column, Row, Table
from reports.tables.statistics import Estimate

COLUMN = Column(key="a", title="A_1", power=3, higher_is_better=True)
NASTY = [
    r"a|b",
    "under_score & 100% #1 $x^2$ ~ {y}",
    r"back\slash\\ \| `code` *bold* <b>html</b> [link](http://x) ![i](y)",
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@sum",
    "＝1+1",
    "two\nlines\r\nand\ttabs",
    "quote \" and ' and -- and `` ",
    "Ünïcödé × 编辑 🎨",
    "&amp; &lt;",
    r"\input{/etc/passwd}",
    "1. item",
    ":smile: ~~gone~~ www.example.org",
]


def table(*labels: str, kind: str = "kind", blocks: int = 1) -> Table:
    rows = tuple(
        Row(label=label, kind=kind, samples="3", estimates=(Estimate(mean=float(i), low=-1.0, high=2.5, n=2),), done=3)
        for i, label in enumerate(labels)
    )
    return Table(
        caption="Caption: " + labels[0],
        columns=(COLUMN,),
        blocks=tuple(Block(label=f"block {i} {labels[0]}", rows=rows) for i in range(blocks)),
        notes=tuple(labels),
    )


def markdown_cells(text: str) -> list[list[str]]:
    """Rows of the first table as a CommonMark renderer with tables reads them, markup taken off."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and token.level == 3 + 1 and rows:
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


@pytest.mark.parametrize("label", NASTY)
def test_markdown_reads_back_as_the_label(label):
    rows = markdown_cells(to_markdown(table(label, "other")))
    assert rows[2][0] == one_line(label)
    assert [len(row) for row in rows] == [4] * 4


@given(st.text())
def test_markdown_reads_back_as_any_label(label):
    rows = markdown_cells(to_markdown(table("first", label)))
    assert rows[3][0] == one_line(label)
    assert len(rows) == 4


@given(st.text())
def test_csv_reads_back_and_is_no_formula(label):
    rows = list(csv.DictReader(io.StringIO(to_csv([table(label)]), newline="")))
    assert len(rows) == 1
    assert rows[0]["method"].removeprefix("'") == one_line(label).removeprefix("'")
    assert rows[0]["method"][:1] not in set("=+-@＝＋－＠\t\r")
    assert float(rows[0]["low"]) == -1.0  # a number is no text, its sign stays


def test_csv_text_leaves_plain_labels_alone():
    assert [csv_text(text) for text in ("plain", "a=b", "=b", " +c", "\t@d")] == ["plain", "a=b", "'=b", "'+c", "'@d"]


class Cells(HTMLParser):
    """The cells of each row, and all tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


OUR_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "nav", "a", "section", "p", "div", "table", "thead"),
    *("tbody", "tr", "th", "td", "ul", "li", "u", "b", "small"),
}


@given(st.text())
@pytest.mark.parametrize("nasty", NASTY)
def test_html_reads_back_as_any_label_and_has_no_tags_but_ours(nasty: str, label: str) -> None:
    page = Cells(to_html([table(nasty, label)], "piebench", ["piebench"], []))
    assert [row[0] for row in page.rows[2:4]] == [one_line(nasty), one_line(label)]
    assert page.tags <= OUR_TAGS


def latex_rows(text: str) -> list[list[str]]:
    """Cells of the rows of a tabular, split as TeX splits them: rows at \\\\ before a line end, cells at bare &."""
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = re.split(r"\\\\\n", body)[:-1]
    return [re.split(r"(?<!\\)&", row) for row in rows]


@pytest.mark.parametrize("label", NASTY)
def test_latex_keeps_its_cells_and_braces(label):
    text = to_latex(table(label, "other"))
    assert [len(cells) for cells in latex_rows(text)] == [4, 1, 4, 4]
    bare = re.sub(r"\\[{}]", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"(?<!\\)[%#~^]", re.sub(r"\\resizebox.*", "", text).replace("10^{3}", ""))


@given(st.text())
def test_latex_text_has_only_commands_of_ours(label):
    commands = set(re.findall(r"\\([a-z]+|.)", latex_text(label)))
    ours = {"textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "char"}
    assert commands <= ours | set("{}$&#%_")
    assert all(character < "\x7f" or "\xc0" <= character <= "\xff" for character in latex_text(label))


def compile_latex(folder: Path) -> str:
    """The log of a compilation of tables.tex that succeeded; empty where no LaTeX is installed."""
    compilers = {"pdflatex": ["-interaction=nonstopmode", "-halt-on-error"], "tectonic": ["--keep-logs"]}
    for name, flags in compilers.items():
        if program := shutil.which(name):
            done = subprocess.run(
                [program, *flags, "tables.tex"], cwd=folder, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stdout[-3000:]
            assert (folder / "tables.pdf").stat().st_size > 1000
            return (folder / "tables.log").read_text(errors="replace")
    return ""


@pytest.mark.parametrize("fonts", ["T1", "OT1"])
def test_latex_compiles_where_there_is_a_compiler(tmp_path, fonts):
    names = ["nasty", "long"]
    (tmp_path / "nasty.tex").write_text(to_latex(table(*NASTY, kind=NASTY[1])), encoding="utf-8")
    (tmp_path / "long.tex").write_text(to_latex(table(*(f"m{i}" for i in range(12)), blocks=6)), encoding="utf-8")
    document = latex_document(names).replace("[T1]", f"[{fonts}]")
    (tmp_path / "tables.tex").write_text(document, encoding="utf-8")
    assert all(rf"\input{{{name}}}" in document for name in names)
    assert "Float too large" not in compile_latex(tmp_path)


def test_the_committed_tables_compile_where_there_is_a_compiler(tmp_path):
    for path in (Path(__file__).parents[2] / "reports" / "miniature").glob("*.tex"):
        shutil.copy(path, tmp_path)
    assert "Float too large" not in compile_latex(tmp_path)


def test_latex_splits_a_table_that_no_page_holds():
    labels = [f"m{i}" for i in range(12)]
    assert to_latex(table("a", "b", blocks=6)).count(r"\begin{table*}") == 1
    split = to_latex(table(*labels, blocks=6))
    assert split.count(r"\begin{table*}") == 6
    assert split.count("m11 &") == 6
