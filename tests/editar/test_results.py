"""What `edit` writes, and what it leaves alone: files of others, and earlier results where it fails."""

import io
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from editar.__main__ import main
from editar.pipeline import EditAR
from tests.limits import files_up_to, memory_up_to

Edit = Callable[..., int]


@pytest.fixture
def edit(small_folder: Path, tmp_path: Path) -> Edit:
    """Runs `edit` on a photo; returns the exit status."""
    Image.radial_gradient("L").resize((60, 40)).save(tmp_path / "photo.jpg")

    def run(*flags: str | Path) -> int:
        words = ["edit", tmp_path / "photo.jpg", "make it red", "--weights", small_folder, *flags]
        return main([str(word) for word in words])

    return run


def test_a_file_beside_the_result_is_not_the_sidecar(edit: Edit, tmp_path: Path) -> None:
    own = tmp_path / "cat.json"
    own.write_text('{"mine": true}')
    assert edit("--out", tmp_path / "cat.jpg") == 0
    assert own.read_text() == '{"mine": true}'
    told = json.loads((tmp_path / "cat.edit.json").read_text("utf-8"))
    assert told["result"]["file"] == "cat.jpg" and told["request"]["instruction"] == "make it red"


@pytest.mark.parametrize("name", ["cat.png", "cat.edit.json"])
def test_what_others_made_is_overwritten_on_demand_only(
    edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_text('{"mine": true}')
    assert edit("--out", tmp_path / "cat.png") == 2
    assert f"{name} would be overwritten" in (told := capsys.readouterr().err) and "--overwrite" in told
    assert (tmp_path / name).read_text() == '{"mine": true}'
    assert edit("--out", tmp_path / "cat.png", "--overwrite") == 0
    assert Image.open(tmp_path / "cat.png").size == (32, 32)


def test_results_are_made_again_unless_somebody_changed_them(edit: Edit, tmp_path: Path) -> None:
    out = tmp_path / "cat.png"
    assert edit("--out", out, "--samples", "2") == 0
    assert edit("--out", out, "--samples", "2", "--guidance", "1.5") == 0
    (tmp_path / "cat-0.png").unlink()
    assert edit("--out", out, "--samples", "2") == 0
    painted = Image.open(out).convert("L")
    painted.save(out)
    assert edit("--out", out, "--samples", "2") == 2
    assert Image.open(out).mode == "L"


def with_memory_up_to(more: int, command: list[str], messages: Path) -> None:
    """The command, in a process that may take so many bytes more than it has."""
    os.dup2(os.open(messages, os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
    EditAR.from_pretrained(command[command.index("--weights") + 1])  # loads the libraries
    memory_up_to(more)
    os._exit(main(command))


def test_want_of_memory_is_one_line(small_folder: Path, tmp_path: Path) -> None:
    Image.new("L", (10_000, 8_000)).save(tmp_path / "large.png")  # 240 MB as RGB
    command = ["edit", str(tmp_path / "large.png"), "make it red", "--weights", str(small_folder)]
    command += ["--out", str(tmp_path / "out.png")]
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=with_memory_up_to, args=(150 * 2**20, command, tmp_path / "messages"))
    process.start()
    process.join(60)
    told = (tmp_path / "messages").read_text()
    assert process.exitcode == 2 and told.startswith("error: memory ran out") and told.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_a_full_disk_leaves_the_earlier_result(edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cat.png"
    assert edit("--out", out) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with files_up_to(100):
        assert edit("--out", out, "--seed", "3") == 2
    assert "cat.png can't be written (File too large)" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
