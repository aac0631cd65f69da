"""The house rules: which package may import which, no name that stands for two things, and how far one record walks."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from benchmarks import piebench
from benchmarks.suites import SUITES

ROOT = Path(__file__).parents[1]
# By package, the packages and modules of ours that it may import.
MAY_IMPORT = {
    "editar": (),
    "baselines": ("editar",),
    "metrics": ("editar.io",),
    "reports": ("editar.io", "benchmarks.runs.schema"),
    "benchmarks": ("editar", "baselines", "metrics", "reports"),
}
MOST_FILES = 35


def imports(path: Path) -> Iterator[str]:
    """What a module imports, anywhere in it, `from package import module` with the module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    allowed = tuple(f"{name}." for name in (package, *MAY_IMPORT[package]))
    for path in (ROOT / package).rglob("*.py"):
        ours = [name for name in imports(path) if name.partition(".")[0] in {*MAY_IMPORT, "tests"}]
        assert [name for name in ours if not f"{name}.".startswith(allowed)] == [], path


def test_one_record_walks_through_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the data set's file to the cell of a table: the modules whose functions run, for a method that only copies.
    The data are drawn and the scoring networks loaded before."""
    monkeypatch.chdir(tmp_path)
    arguments = piebench.Arguments(methods=("copy-source",), limit=1, out=tmp_path / "runs")
    miniature = SUITES["miniature"]
    data, networks = miniature.dataset(None), miniature.backbones(None, "cpu", "float32", None)
    suite = replace(miniature, dataset=lambda _: data, backbones=lambda *_: networks)
    files: set[str] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            files.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        piebench.evaluate(arguments, suite)
    finally:
        sys.setprofile(None)
    walked = sorted(name.removeprefix(f"{ROOT}/") for name in files if name.startswith(f"{ROOT}/"))
    walked = [name for name in walked if name.endswith(".py") and not name.startswith(("tests/", ".nox/"))]
    assert "benchmarks/datasets/piebench.py" in walked and "reports/tables/piebench.py" in walked
    assert len(walked) <= MOST_FILES, "\n".join(walked)
