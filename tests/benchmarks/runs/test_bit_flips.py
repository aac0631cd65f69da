"""Every file of a run loses a bit, hundreds of times: it is refused or made again, and no number changes."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.datasets.piebench import PieBench, read_piebench
from benchmarks.runs.execute import Shard
from benchmarks.runs.fid import replace_fid
from benchmarks.runs.log import SampleLog, log_path, read_logs
from benchmarks.runs.schema import Fid, Network, RunError, Sample, read_fid, read_manifest, read_sample_table
from benchmarks.runs.store import RunDirectory
from editar.io.digests import sealed
from reports.runs import ReportError, read_run, read_runs
from tests.benchmarks.killable import BATCH, Noise, PixelBenchmark, open_run, run
from tests.benchmarks.tiny import SIDE, write_piebench
from tests.flips import COUNTS, campaign

COUNT = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PieBench:
    root = tmp_path_factory.mktemp("data")
    write_piebench(root, COUNT)
    return read_piebench(root, SIDE)


@pytest.fixture
def finished(data: PieBench, tmp_path: Path) -> RunDirectory:
    return start(data, tmp_path / "run")


def start(data: PieBench, folder: Path) -> RunDirectory:
    directory, benchmark = open_run(folder, data), PixelBenchmark(data)
    run(benchmark, {"noise": directory}, {"noise": Noise}, [*benchmark.records], batch_size=BATCH, shard=Shard())
    assert directory.merge([*benchmark.records], benchmark.facts)
    return directory


@pytest.mark.parametrize("count", COUNTS)
def test_logs(data: PieBench, tmp_path: Path, count: int) -> None:
    benchmark = PixelBenchmark(data)
    half = {"noise": open_run(tmp_path, data)}
    run(benchmark, half, {"noise": Noise}, [*benchmark.records], batch_size=2, shard=Shard(index=0, count=2))
    known, _ = read_logs(tmp_path)

    def lost_the_end(found: Any) -> bool:  # of the last line, so that its batch is done again
        samples, _ = found
        return all(known[name] == sample or sample.scores is None for name, sample in samples.items())

    outcomes = campaign(log_path(tmp_path, 0), lambda: read_logs(tmp_path), count, RunError, lost_the_end)
    assert outcomes["silent"] == outcomes["unseen"] == 0 and outcomes["refused"] > 0.95 * count


@pytest.mark.parametrize("count", COUNTS)
def test_manifests(finished: RunDirectory, count: int) -> None:
    path = finished.folder / "manifest.json"
    outcomes = campaign(path, lambda: read_manifest(finished.folder), count, RunError)
    assert outcomes == {"silent": 0, "refused": count}


@pytest.mark.parametrize("count", COUNTS)
def test_tables(finished: RunDirectory, count: int) -> None:
    path = finished.folder / "samples.parquet"
    outcomes = campaign(path, lambda: read_run(finished.folder).attempted.to_csv(), count, ReportError)
    assert outcomes["silent"] == 0


@pytest.mark.parametrize("count", COUNTS)
def test_fid(finished: RunDirectory, count: int) -> None:
    network = Network(name="inception", official=False, digest="a" * 64)
    replace_fid(finished, Fid(network=network, generated="b" * 64, reference="c" * 64, images=6, dimension=8, fid=12.5))
    outcomes = campaign(finished.folder / "fid.json", lambda: read_fid(finished.folder), count, RunError)
    assert outcomes == {"silent": 0, "refused": count}


@pytest.mark.parametrize("count", COUNTS)
def test_images_of_a_finished_run(data: PieBench, finished: RunDirectory, count: int) -> None:
    name = next(iter(finished.samples))
    path = finished.image_path(name)
    outcomes = campaign(path, lambda: finished.to_make(name), count, RunError, is_remade=bool)
    assert outcomes == {"silent": 0, "remade": count}


def test_an_image_that_was_changed_in_the_middle_is_made_and_scored_again(
    data: PieBench, finished: RunDirectory
) -> None:
    rows, name = read_sample_table(finished.folder / "samples.parquet").to_pylist(), next(iter(finished.samples))
    path = finished.image_path(name)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    start(data, finished.folder)
    assert path.read_bytes() == whole
    again = read_sample_table(finished.folder / "samples.parquet").to_pylist()
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in rows]


SCORES: list[dict[str, Any]] = [
    {"difference": 1.0},
    {"difference": 1.0, "brightest": 2.0, "more": 3.0},
    {"difference": 1.0, "brightest": float("nan")},
    {"difference": 1.0, "brightest": True},
    {"difference": 1.0, "brightest": None},
    {"difference": "1", "brightest": 2.0},
]


@pytest.mark.parametrize("scores", SCORES)
def test_scores_of_other_columns_or_that_are_no_numbers_are_failures(
    data: PieBench, tmp_path: Path, scores: dict[str, Any]
) -> None:
    """Of a benchmark that scores so: an error at each sample."""

    class Wrong(PixelBenchmark):
        def _scored(self, sample: Sample, image: Any) -> Sample:
            return Sample(sample_id=sample.sample_id, image_sha256=sample.image_sha256, scores=scores)

    directory, benchmark = open_run(tmp_path, data), Wrong(data)
    run(benchmark, {"noise": directory}, {"noise": Noise}, [*benchmark.records], batch_size=BATCH, shard=Shard())
    assert {sample.status for sample in directory.samples.values()} == {"failed"}


@pytest.mark.parametrize("scores", ['{"difference": 1.0}', '{"difference": 1e999, "brightest": 1.0}', '{"a": 1.0}'])
def test_logs_with_such_scores_are_refused(data: PieBench, tmp_path: Path, scores: str) -> None:
    """Although their digest fits."""
    directory = open_run(tmp_path, data)
    log = SampleLog(tmp_path, 0)
    log.append([Sample(sample_id="a", image_sha256="0" * 64, scores={"difference": 1.0, "brightest": 1.0})], 1.0)
    log.close()
    directory.reload()
    path = log_path(tmp_path, 0)
    *before, last = path.read_bytes().splitlines(keepends=True)
    text = b"{" + last.partition(b",")[2].rstrip()
    path.write_bytes(
        b"".join([*before, sealed(text.replace(b'{"difference": 1.0, "brightest": 1.0}', scores.encode()))])
    )
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(RunError, match=r"difference|brightest"):
        directory.reload()


@pytest.mark.parametrize("value", ["1e999", "NaN", "true"])
def test_summaries_with_such_scores_are_refused(tmp_path: Path, value: str) -> None:
    committed = Path(__file__).parents[3] / "reports" / "miniature" / "summaries" / "piebench" / "copy-source.json"
    assert len(read_runs([committed], ("mse",), ()))
    first, _, rest = committed.read_text().partition('"mse": ')
    path = tmp_path / "copy-source.json"
    path.write_text(f'{first}"mse": {value}{rest[rest.index(",") :]}')
    with pytest.raises(ReportError, match=r"copy-source\.json"):
        read_runs([path], ("mse",), ())
