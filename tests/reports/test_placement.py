"""Runs of some of the rows keep the committed others, and say so; other settings get tables of their own."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from reports.__main__ import main
from reports.benchmark import render
from reports.committed import place_tables, take
from reports.reproduction import TOLERANCES
from tests.reports.test_cost import COST

Write = Callable[..., Path]


@pytest.fixture
def folder(write_run: Write, tmp_path: Path) -> Path:
    """Committed summaries of three rows."""
    rows = ("copy-source", "editar", "masactrl")
    take([write_run(row, seed=seed, folder=f"first/{row}") for seed, row in enumerate(rows)], tmp_path / "tables")
    return tmp_path / "tables"


def test_equal_numbers_need_no_word_in_the_table(write_run: Write, folder: Path, tmp_path: Path) -> None:
    place = place_tables([write_run("editar", seed=1)], folder, tmp_path / "elsewhere")
    assert (place.folder, place.notes) == (folder, ())
    assert [path.stem for path in place.rows if path.is_file()] == ["copy-source", "masactrl"]
    assert "rows taken from" in place.message and "copy-source, masactrl" in place.message


def test_rounding_leaves_the_committed_row(write_run: Write, frame: Callable[..., pd.DataFrame], folder: Path) -> None:
    samples = frame(12, 1)
    for share, stays in ((0.5, True), (2, False)):
        moved = samples.assign(psnr=samples["psnr"] + share * TOLERANCES["psnr"], image_sha256="f" * 64)
        place = place_tables([write_run("editar", samples=moved, folder=f"moved-{share}")], folder, folder)
        assert (folder / "summaries" / "piebench" / "editar.json" in place.rows) == stays, share
        assert ("equal but for rounding" in place.message) == stays
        assert bool(place.notes) != stays
    cost = write_run("editar", seed=1, folder="cost", manifest={"cost": COST})
    moved = samples.assign(psnr=samples["psnr"] + TOLERANCES["psnr"] / 2)
    moved.to_parquet(cost / "samples.parquet")
    render("piebench", place_tables([cost], folder, folder), allow_partial=False, plots=False)
    assert "| editar |" in (folder / "piebench-cost.md").read_text()
    undefined = samples.assign(undefined=[json.dumps({"psnr": "why"}), *[None] * 11])
    assert place_tables([write_run("editar", samples=undefined, folder="undefined")], folder, folder).notes


def test_other_numbers_and_new_rows_are_named(write_run: Write, folder: Path, tmp_path: Path) -> None:
    runs = [write_run("editar", seed=9), write_run("masactrl", seed=2), write_run("mine", seed=8)]
    place = place_tables(runs, folder, tmp_path / "elsewhere")
    assert [path.stem for path in place.rows if path.is_file()] == ["copy-source"]
    [note] = place.notes
    assert note.endswith("committed summaries: editar, mine.")
    assert "equal to" in place.message and "masactrl" in place.message.splitlines()[0]


def test_other_records_or_seeds_go_elsewhere(write_run: Write, folder: Path, tmp_path: Path) -> None:
    for name, run in {
        "fewer": write_run("editar", count=6, folder="fewer"),
        "seed": write_run("editar", manifest={"seed": 1}, folder="seed"),
        "unfinished": write_run("editar", manifest={"counts": {"expected": 13}}, folder="unfinished"),
    }.items():
        place = place_tables([run], folder, tmp_path / "elsewhere")
        assert (place.folder, place.all_run) == (tmp_path / "elsewhere", True), name
        assert str(tmp_path / "elsewhere") in place.message


def test_the_command_line_keeps_the_committed_rows(
    write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ("copy-source", "editar", "masactrl")
    runs = [write_run(row, seed=seed, folder=f"old/{row}") for seed, row in enumerate(rows)]
    folder = Path("reports/miniature")
    assert main(["--runs", *map(str, runs), "--out", str(folder)]) == 0
    take(runs, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    write_run("editar", seed=1, folder="now/editar")
    assert main(["--runs", "runs/now"]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    write_run("editar", count=6, folder="short/editar")
    capsys.readouterr()
    assert main(["--runs", "runs/short"]) == 0
    assert str(Path("runs/reports/miniature")) in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert Path("runs/reports/miniature/piebench.md").is_file()
