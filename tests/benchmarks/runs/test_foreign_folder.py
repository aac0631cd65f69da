"""A run directory that somebody else prepared: links and pipes in the places of its files, and files called alike."""

import os
from pathlib import Path

import pytest

from tests.benchmarks.faults import Laboratory, result

TEMPORARY = (
    ".manifest.json.part", ".manifest.json.locked.part", ".samples.parquet.part", ".samples.parquet.locked.part",
    "images/.000000000000.png.0.part", "images/.000000000000.png.part",
)  # fmt: skip


@pytest.fixture
def prepared(laboratory: Laboratory) -> Path:
    out = laboratory.folder()
    (out / "noise" / "images").mkdir(parents=True)
    return out


def test_what_links_in_the_places_of_temporary_files_lead_to_is_kept(laboratory: Laboratory, prepared: Path) -> None:
    victim = prepared.parent / "victim"
    victim.write_text("kept")
    for name in TEMPORARY:
        (prepared / "noise" / name).symlink_to(victim)
    assert laboratory.start(prepared) == 0
    assert victim.read_text() == "kept"
    victim.unlink()


@pytest.mark.parametrize("name", ["lock", "samples-0.jsonl"])
def test_no_log_is_written_through_a_link(laboratory: Laboratory, name: str) -> None:
    out = laboratory.folder()
    assert laboratory.start(out, shard="0/2") == 0
    victim = out.parent / "victim"
    victim.write_text("kept")
    (out / "noise" / name).unlink()
    (out / "noise" / name).symlink_to(victim)
    assert laboratory.start(out) == 2
    assert name in (out / "messages").read_text() and victim.read_text() == "kept"
    victim.unlink()


@pytest.mark.parametrize("name", ["lock", "manifest.json", "samples-0.jsonl"])
def test_nobody_waits_for_a_pipe(laboratory: Laboratory, name: str) -> None:
    out = laboratory.folder()
    assert laboratory.start(out, shard="0/2") == 0
    (out / "noise" / name).unlink()
    os.mkfifo(out / "noise" / name)
    assert laboratory.start(out) == 2
    told = (out / "messages").read_text()
    assert name in told and "it is no plain file" in told and told.count("\n") == 1


def test_an_image_that_is_a_pipe_is_made_again(laboratory: Laboratory) -> None:
    out = laboratory.folder()
    assert laboratory.start(out) == 0
    path = next((out / "noise" / "images").iterdir())
    path.unlink()
    os.mkfifo(path)
    laboratory.finish(out, "pipe in the place of an image")


def test_files_called_like_logs_are_left_alone(laboratory: Laboratory) -> None:
    out = laboratory.folder()
    assert laboratory.start(out, shard="0/2") == 0
    copy = out / "noise" / "samples-old.jsonl"
    copy.write_bytes((out / "noise" / "samples-0.jsonl").read_bytes())
    assert laboratory.start(out) == 0
    assert copy.is_file()
    copy.unlink()
    assert result(out) == laboratory.uninterrupted
