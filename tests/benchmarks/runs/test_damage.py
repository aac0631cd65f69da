"""Files of a run that were damaged after they had been written: made good or refused by name, never taken as is."""

import random
import struct
from pathlib import Path

import pytest

from benchmarks.runs.schema import RunError, read_sample_table
from benchmarks.runs.store import RunDirectory
from reports.runs import ReportError, read_runs
from tests.benchmarks.faults import METHODS, Laboratory, result
from tests.benchmarks.killable import COLUMNS


@pytest.fixture
def interrupted(laboratory: Laboratory) -> Path:
    """A run whose one half is done, so that its logs are there."""
    out = laboratory.folder()
    assert laboratory.start(out, shard="0/2") == 0
    assert list(out.glob("*/samples-0.jsonl"))
    return out


@pytest.fixture
def finished(laboratory: Laboratory) -> Path:
    out = laboratory.folder()
    assert laboratory.start(out) == 0
    return out


def open_again(laboratory: Laboratory, out: Path) -> RunDirectory:
    return RunDirectory(out / "noise", laboratory.manifests["noise"], COLUMNS)


@pytest.mark.parametrize("state", ["interrupted", "finished"])
def test_truncated_images_are_made_again(laboratory: Laboratory, state: str, request: pytest.FixtureRequest) -> None:
    out: Path = request.getfixturevalue(state)
    damaged = 0
    for name in METHODS:
        first, second, *_ = sorted((out / name / "images").glob("*.png"))
        first.write_bytes(first.read_bytes()[:-1])
        second.write_bytes(b"")
        damaged += 2
    laboratory.finish(out, "truncated PNG", damaged)


def test_truncated_logs_lose_what_was_cut_off_and_no_more(laboratory: Laboratory) -> None:
    for tail in (1, 2, 400, 1500):
        out = laboratory.folder()
        assert laboratory.start(out, shard="0/2") == 0
        log = out / "noise" / "samples-0.jsonl"
        log.write_bytes(log.read_bytes()[:-tail] + bytes(7 if tail > 2 else 0))  # some file systems leave zeros
        laboratory.finish(out, "truncated JSONL")


@pytest.mark.parametrize(
    "content", [b'{"turn": 1, "samples', b"[1]", b'{"samples": [{"id": 1}], "session": {}}', b"\0\0"]
)
def test_a_damaged_line_is_refused_until_it_is_removed(
    laboratory: Laboratory, interrupted: Path, content: bytes
) -> None:
    log = interrupted / "noise" / "samples-0.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:2], content + b"\n", *lines[2:]]))
    assert laboratory.start(interrupted) == 2
    told = (interrupted / "messages").read_text()
    assert "noise/samples-0.jsonl: line 3 is damaged" in told and "delete that line" in told
    log.write_bytes(b"".join(lines))
    laboratory.finish(interrupted, "damaged JSONL")


def test_a_damaged_table_is_refused_wherever_the_damage_is(laboratory: Laboratory, finished: Path) -> None:
    path = finished / "noise" / "samples.parquet"
    whole, dice = path.read_bytes(), random.Random(11)
    rows = read_sample_table(path).to_pylist()
    found = 0
    for number in range(400):
        damaged = bytearray(whole)
        if number % 4:
            damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        else:
            del damaged[dice.randrange(len(whole)) :]
        path.write_bytes(damaged)
        try:
            assert read_sample_table(path).to_pylist() == rows  # what was hit says nothing, or is there twice
        except ValueError:
            found += 1
    assert found > 200
    laboratory.ledger.injected["damaged Parquet"] += 400
    path.write_bytes(whole)
    assert result(finished) == laboratory.uninterrupted


def test_a_damaged_table_is_named(laboratory: Laboratory, finished: Path) -> None:
    path = finished / "noise" / "samples.parquet"
    whole = path.read_bytes()
    score = struct.pack("<d", read_sample_table(path)["difference"][0].as_py())
    other = struct.pack("<d", read_sample_table(path)["difference"][0].as_py() + 1)
    changed = whole.replace(score, other)  # still Parquet, with another number in it
    assert changed != whole
    for damaged in (changed, whole[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"samples\.parquet .*--fresh"):
            open_again(laboratory, finished)
        with pytest.raises(ReportError):
            read_runs([finished / "noise"], COLUMNS, ())
        assert laboratory.start(finished) == 2
        assert path.read_bytes() == damaged
    path.write_bytes(whole)
    laboratory.finish(finished, "damaged Parquet", 2)
