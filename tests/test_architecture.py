"""How far one record walks through the code."""

import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from benchmarks import piebench
from benchmarks.suites import SUITES

ROOT = Path(__file__).parents[1]
MOST_FILES = 35
NOT_ON_THE_WAY = ("tests/", ".nox/", "benchmarks/miniature/world/")


def test_one_record_walks_through_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the data set's file to the cell of a table: the modules whose functions run, for a method that only copies.
    The data are drawn and the scoring networks loaded before; the world that the judge renders alternatives of is data
    too."""
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
    walked = [name for name in walked if name.endswith(".py") and not name.startswith(NOT_ON_THE_WAY)]
    assert "benchmarks/datasets/piebench.py" in walked and "reports/tables/piebench.py" in walked
    assert len(walked) <= MOST_FILES, "\n".join(walked)
