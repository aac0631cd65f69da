"""Runs that are killed and started again, and runs of several processes."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.runs.schema import Counts, read_manifest
from tests.benchmarks.killable import BATCH
from tests.benchmarks.tiny import write_piebench

ROOT = Path(__file__).parents[3]
COUNT = 30
METHODS = ("noise", "again")

pytestmark = pytest.mark.slow  # test_faults.py kills runs that start faster
TOTAL = (len(METHODS) + 1) * COUNT  # every image made, every record scored once for all methods


def start(data: Path, out: Path, calls: Path, *shard: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.benchmarks.killable", str(data), str(out), str(calls), *shard]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]") -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def result(out: Path) -> dict[str, object]:
    """All that a run leaves but its times: the PNG bytes and the rows."""
    everything: dict[str, object] = {}
    for path in sorted(out.glob("*/images/*")):
        everything[str(path.relative_to(out))] = path.read_bytes()
    for method in METHODS:
        everything[method] = pd.read_parquet(out / method / "samples.parquet").drop(columns="seconds").to_csv()
    return everything


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_piebench(root, COUNT)
    return root


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("uninterrupted")
    finish(start(data, out, out / "calls"))
    assert len(lines(out / "calls")) == TOTAL
    return result(out)


def test_a_killed_run_ends_as_an_uninterrupted_one(
    data: Path, tmp_path: Path, uninterrupted: dict[str, object]
) -> None:
    calls, dice = tmp_path / "calls", random.Random(5)
    kills = 0
    while True:
        before = len(lines(calls))
        process = start(data, tmp_path / "out", calls)
        target = before + dice.randrange(1, TOTAL // 2)
        while process.poll() is None and len(lines(calls)) < target:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.03)
        process.kill()
        _, errors = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -9, errors.decode()
        kills += 1
        assert len(lines(calls)) > before, "a start made no progress"
    assert kills >= 2
    assert result(tmp_path / "out") == uninterrupted
    assert len(lines(calls)) <= TOTAL + kills * BATCH  # each kill costs at most the batch that was under way
    manifest = read_manifest(tmp_path / "out" / "noise")
    assert manifest is not None
    assert manifest.counts == Counts(expected=COUNT, done=COUNT)
    assert 2 <= len(manifest.sessions) <= kills + 1
    assert not list((tmp_path / "out").glob("*/samples-*.jsonl")) and not list((tmp_path / "out").glob("*/images/.*"))


def test_several_processes_end_as_one(data: Path, tmp_path: Path, uninterrupted: dict[str, object]) -> None:
    calls, out = tmp_path / "calls", tmp_path / "out"
    processes = [start(data, out, calls, f"{index}/3") for index in range(3)]
    processes[1].kill()
    processes[1].communicate()
    for process in (processes[0], processes[2]):
        finish(process)
    assert not list(out.glob("*/samples.parquet"))
    finish(start(data, out, calls))  # one process takes up what the dead one left
    assert result(out) == uninterrupted
    assert len(lines(calls)) <= TOTAL + BATCH
    assert not list(out.glob("*/samples-*.jsonl"))


def test_a_second_start_does_nothing(data: Path, tmp_path: Path) -> None:
    calls, out = tmp_path / "calls", tmp_path / "out"
    finish(start(data, out, calls))
    first = lines(calls)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    finish(start(data, out, calls))
    assert lines(calls) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == stamps
