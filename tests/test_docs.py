"""README, CONTRIBUTING and docs/: links lead somewhere, numbers are the committed ones, the picture shows the code."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image

from baselines import METHODS, TRANSLATORS
from baselines.method import MethodContext
from benchmarks.runs.translation_references import REFERENCES
from docs.architecture import IMPORTS, PICTURE, STEPS, draw

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
AWKWARD = (  # translated, or makes a reader stop
    "picked by nobody", "not to be had", "there are none", "which is said", "which is told", "hangs on", "likelier",
)  # fmt: skip


def targets(page: Path) -> list[str]:
    """Where the links and images of a page lead."""
    inline = [token for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()) if token.children]
    found = [child.attrs.get("href", child.attrs.get("src")) for token in inline for child in token.children or ()]
    return [str(target) for target in found if target is not None]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    tokens = MarkdownIt("commonmark").parse(page.read_text())
    titles = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_anchors_lead_somewhere(page: Path) -> None:
    broken = []
    for target in targets(page):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.is_file() or ROOT not in file.parents or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_commands_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    named = re.findall(
        r"`((?:editar|baselines|metrics|reports|benchmarks|tests|configs|examples|docs)/[\w./-]*)`", text
    )
    assert [name for name in named if not (ROOT / name).exists() and name != "baselines/mirror.py"] == []
    modules = set(re.findall(r"-m ((?:benchmarks|reports|editar|docs)\b(?:\.\w+)*)", text))
    assert [name for name in modules if find_spec(name) is None] == []


def test_every_page_can_be_reached_from_the_readme_and_is_in_the_site() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        linked = {(page.parent / target.partition("#")[0]).resolve() for target in targets(page) if ":" not in target}
        waiting += [each for each in linked & set(PAGES) if each not in reached]
    assert set(PAGES) - reached == {ROOT / "docs" / "api.md"}  # made from docstrings: only the site has its text
    nav = re.findall(r"[\w/-]+\.md", str(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    in_site = {"index.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT / "docs")) for page in PAGES[2:])}
    assert sorted(nav) == sorted(in_site)


def test_the_readme_is_short_and_its_commands_set_up_everything() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 9000
    for session in ("piebench", "tests"):
        assert f"\npython3 -m venv .venv && .venv/bin/pip install nox uv && .venv/bin/nox -s {session}\n" in text
    assert text.index("--images my_edits") < text.index("nox -s piebench")  # score your own folder comes first


def test_the_numbers_of_the_readme_are_the_committed_ones() -> None:
    committed = (ROOT / "reports" / "miniature" / "piebench.md").read_text().partition("published with")[0]
    cells = {row[0]: row[1:] for row in map(_cells, committed.splitlines()) if len(row) > 6 and "---" not in row}
    rows = [row for row in map(_cells, (ROOT / "README.md").read_text().splitlines()) if len(row) == 6]
    rows = [row for row in rows if row[0] in cells]
    assert {"editar", "copy-source"} < {row[0] for row in rows}
    for name, *shown in rows:
        assert shown == [cells[name][i] for i in (0, 1, 2, 3, 7)], name


def test_the_numbers_of_the_miniature_page_are_the_committed_ones() -> None:
    page = (ROOT / "docs" / "miniature.md").read_text()
    measured = ROOT / "benchmarks" / "miniature" / "evaluate" / "results" / "results.md"
    rows = [line for line in measured.read_text().splitlines() if line.startswith("| ") and re.search(r"\d", line)]
    assert len(rows) > 25 and [row for row in rows if row not in page] == []


def test_every_row_is_in_the_table_of_methods() -> None:
    rows = [_cells(line) for line in (ROOT / "docs" / "methods.md").read_text().splitlines()]
    kinds = {found[1]: row[1] for row in rows if len(row) > 6 and (found := re.match(r"\[?`([\w-]+)`", row[0]))}
    assert set(kinds) == {*METHODS, *TRANSLATORS, *REFERENCES}
    context = MethodContext(suite="paper", weights=None, device="cpu", image_side=512, task="depth")
    cards = {name: build(context).card for name, build in METHODS.items()}
    cards |= {name: build(context).card for name, build in TRANSLATORS.items() if name not in cards}
    cards |= {name: build(context).card for name, build in REFERENCES.items() if name not in cards}
    assert [name for name, card in cards.items() if not kinds[name].startswith(card.kind)] == []


def _cells(line: str) -> list[str]:
    """Of a row of a table, without emphasis and without what follows the number in a cell."""
    plain = re.sub(r"</?ins>|\*\*", "", line)
    return [re.split(r" [\[(]", cell.strip())[0] for cell in plain.strip("|").split("|")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_english_is_plain(page: Path) -> None:
    assert [phrase for phrase in AWKWARD if phrase in " ".join(page.read_text().split())] == []


def test_the_committed_picture_is_what_the_script_draws(tmp_path: Path) -> None:
    drawn, committed = (
        np.asarray(Image.open(path).convert("RGB"), float) for path in (draw(tmp_path / "new.png"), PICTURE)
    )
    assert drawn.shape == committed.shape
    assert np.abs(drawn - committed).mean() < 1  # of 255: fonts are drawn alike, but for their edges


def test_the_picture_shows_folders_and_imports_of_the_code() -> None:
    assert [folder for _, folder, _ in STEPS if not (ROOT / folder).is_dir()] == []
    forbidden = []
    for package, allowed in IMPORTS.items():
        for file in (ROOT / package).rglob("*.py"):
            for module in _imported(ast.parse(file.read_text())):
                root = module.partition(".")[0]
                if root in IMPORTS and root != package and not f"{module}.".startswith(tuple(f"{a}." for a in allowed)):
                    forbidden.append(f"{file.relative_to(ROOT)}: {module}")
    assert forbidden == []


def _imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_the_citation_names_the_paper_and_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation) and citation["cff-version"] == "1.2.0"
    assert f'version = "{citation["version"]}"' in (ROOT / "pyproject.toml").read_text()
    (paper,) = citation["references"]
    readme = (ROOT / "README.md").read_text()
    assert "2501.04699" in paper["url"] and all(author["family-names"] in readme for author in paper["authors"])
