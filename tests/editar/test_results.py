"""What `edit` writes, and what it leaves alone: files of others, and earlier results where it fails."""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from editar.__main__ import main

Edit = Callable[..., int]


@pytest.fixture
def edit(small_folder: Path, tmp_path: Path) -> Edit:
    """Runs `edit` on a photo; returns the exit status."""
    Image.radial_gradient("L").resize((60, 40)).save(tmp_path / "photo.jpg")

    def run(*flags: str | Path) -> int:
        words = ["edit", tmp_path / "photo.jpg", "make it red", "--weights", small_folder, *flags]
        return main([str(word) for word in words])

    return run


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may get longer, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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


def test_a_full_disk_leaves_the_earlier_result(edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cat.png"
    assert edit("--out", out) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with files_up_to(100):
        assert edit("--out", out, "--seed", "3") == 2
    assert "cat.png can't be written (File too large)" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
