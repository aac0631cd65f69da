"""Tables that there is no room for: the message names the file, and what was there stays."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from reports.__main__ import main
from reports.runs import read_run
from tests.limits import files_up_to


def test_a_gallery_that_there_is_no_room_for_leaves_the_earlier_one(
    write_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = write_run("editar"), tmp_path / "gallery"
    for sample_id in read_run(run).samples.index:
        Image.effect_noise((64, 64), 50).convert("RGB").save(run / "images" / f"{sample_id}.png")
    command = ["--runs", str(run), "--out", str(tmp_path / "tables"), "--gallery", str(out)]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    page = before.pop(out / "index.html")
    with files_up_to(len(page) - 1):
        assert main(command) == 2
    assert "can't be written (File too large)" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == {
        **before,
        out / "index.html": page,
    }


@pytest.mark.parametrize("size", [10, 1000, 3000])
def test_a_full_disk_is_named_and_leaves_the_earlier_tables(
    write_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    run, out = write_run("editar"), tmp_path / "tables"
    assert main(["--runs", str(run), "--out", str(out)]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = write_run("editar", seed=1, folder="other")
    with files_up_to(size):
        assert main(["--runs", str(other), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert str(out) in told and "can't be written (File too large)" in told and told.count("\n") == 1
    assert before.keys() == {path.name for path in out.iterdir()}
    written = [path.name for path in out.iterdir() if path.read_bytes() != before[path.name]]
    assert all((out / name).stat().st_size <= size for name in written)
    assert main(["--runs", str(other), "--out", str(out)]) == 0
