"""The code changes between two processes of a run."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.datasets.piebench import PieBench, read_piebench
from benchmarks.runs.execute import Shard
from benchmarks.runs.manifest import source_digest
from benchmarks.runs.schema import RunError, read_manifest
from benchmarks.runs.store import RunDirectory
from reports.committed import write_summary
from reports.runs import ReportError, read_run
from reports.tables.comparison import run_notes
from tests.benchmarks.killable import BATCH, COLUMNS, Noise, PixelBenchmark, open_run, run
from tests.benchmarks.tiny import SIDE, write_piebench

NOTE = "noise mixes samples of 2 versions of the code."


@pytest.fixture
def data(tmp_path: Path) -> PieBench:
    write_piebench(tmp_path / "data", 6)
    return read_piebench(tmp_path / "data", SIDE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "noise"


def open_with(folder: Path, data: PieBench, source: str, allow_mixed: bool = False) -> RunDirectory:
    """The run, for a process whose code has the digest `source`."""
    open_run(folder, data)
    known = read_manifest(folder)
    assert known is not None
    return RunDirectory(folder, replace(known, source=source), COLUMNS, allow_mixed=allow_mixed)


def share(directory: RunDirectory, data: PieBench, shard: str) -> bool:
    """Does the shard; returns whether the run is finished."""
    benchmark = PixelBenchmark(data)
    ids = [*benchmark.records]
    run(benchmark, {"noise": directory}, {"noise": Noise}, ids, batch_size=BATCH, shard=Shard.parse(shard))
    return directory.merge(ids, benchmark.facts)


def test_shards_of_other_code_are_refused(data: PieBench, folder: Path) -> None:
    share(open_with(folder, data, "a" * 64), data, "0/2")
    with pytest.raises(RunError, match="--allow-mixed"):
        share(open_with(folder, data, "b" * 64), data, "1/2")
    assert len(open_with(folder, data, "b" * 64).samples) == BATCH  # nothing was added
    assert share(open_with(folder, data, "a" * 64), data, "1/2")
    open_with(folder, data, "b" * 64)  # which adds nothing
    finished = read_run(folder)
    assert finished.manifest.sources == ["a" * 64] and NOTE not in run_notes([finished], ())


def test_mixed_rows_are_allowed_by_name_and_noted(data: PieBench, folder: Path, tmp_path: Path) -> None:
    share(open_with(folder, data, "a" * 64), data, "0/2")
    assert share(open_with(folder, data, "b" * 64, allow_mixed=True), data, "1/2")
    finished = read_run(folder)
    assert finished.manifest.sources == ["a" * 64, "b" * 64]
    assert NOTE in run_notes([finished], ())
    with pytest.raises(RunError, match="--fresh"):
        open_with(folder, data, "b" * 64)
    with pytest.raises(ReportError, match="--fresh"):
        write_summary(finished, tmp_path)


def test_a_process_records_its_code(data: PieBench, folder: Path) -> None:
    share(open_run(folder, data), data, "0/1")
    assert read_run(folder).manifest.sources == [source_digest()] and len(source_digest()) == 64
