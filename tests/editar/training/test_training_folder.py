"""A training's folder: one training at a time, and whole files on a full disk."""

import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from editar.__main__ import main
from editar.io.atomic import lock_or_refuse
from tests.editar.training.test_train_command import SETTINGS
from tests.editar.training.training_sets import write_jsonl
from tests.limits import files_up_to


@pytest.fixture
def settings(small_folder: Path, tmp_path: Path) -> Path:
    pairs = write_jsonl(tmp_path / "pairs", 10)
    path = tmp_path / "settings.toml"
    path.write_text(SETTINGS.format(out=tmp_path / "out", start=small_folder, pairs=pairs))
    return path


def hold(folder: Path, held: Event, enough: Event) -> None:
    with lock_or_refuse(folder):
        held.set()
        enough.wait(60)


def test_a_second_training_is_refused(settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("fork")
    held, enough = context.Event(), context.Event()
    (tmp_path / "out").mkdir()
    other = context.Process(target=hold, args=(tmp_path / "out", held, enough))
    other.start()
    assert held.wait(60)
    assert main(["train", str(settings), "--previews", "0"]) == 2
    assert f"out is in use by process {other.pid} on" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("step-*"))
    enough.set()
    other.join()
    assert main(["train", str(settings), "--previews", "0", "--training.steps", "2"]) == 0


@pytest.mark.parametrize("size", [50, 2000, 20_000, 100_000])
def test_a_full_disk_ends_a_training_in_one_line(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    flags = ["--token-cache", str(tmp_path / "cache")] if size == 20_000 else []
    with files_up_to(size):
        assert main(["train", str(settings), "--previews", "0", *flags]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(told) == 1 and str(tmp_path) in told[0] and "can't be written" in told[0]
    assert not list((tmp_path / "out").rglob("*.part"))
    assert main(["train", str(settings), "--previews", "0", "--training.steps", "6"]) == 0
