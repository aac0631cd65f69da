"""What making images takes, method by method in one process."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from baselines.method import EditRequest, MethodCard
from benchmarks.datasets.piebench import read_piebench
from benchmarks.runs import memory
from benchmarks.runs.execute import Shard
from benchmarks.runs.schema import Cost, read_manifest
from tests.benchmarks.killable import PixelBenchmark, open_run, run
from tests.benchmarks.tiny import SIDE, write_piebench

LARGE = 300 * 2**20  # bytes, which malloc gives back


class Large:
    card = MethodCard()

    def load(self) -> None:
        self.weights = np.ones(LARGE, np.uint8)

    def settings(self) -> dict[str, float]:
        return {"strength": 0.5}

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        return [request.image for request in requests]


class Small(Large):
    def load(self) -> None:
        pass


def costs_of_both(folder: Path) -> dict[str, Cost]:
    write_piebench(folder / "data", 2)
    data = read_piebench(folder / "data", SIDE)
    ids = [record.sample_id for record in data.records]
    runs = {name: open_run(folder / name, data, name) for name in ("large", "small")}
    benchmark = PixelBenchmark(data)
    run(benchmark, runs, {"large": Large, "small": Small}, ids, batch_size=1, shard=Shard())
    costs = {}
    for name, each in runs.items():
        assert each.merge(ids, benchmark.facts)
        manifest = read_manifest(folder / name)
        assert manifest is not None and manifest.cost is not None
        costs[name] = manifest.cost
        assert manifest.peak_memory_bytes >= costs[name].peak_memory_bytes > costs[name].before_bytes * 0.9
    return costs


def test_a_method_is_not_charged_for_the_one_before_it(tmp_path: Path) -> None:
    """In a process of its own: of this one's memory the system may take back a part at any moment."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        costs = pool.submit(costs_of_both, tmp_path).result()
    own = {name: cost.peak_memory_bytes - cost.before_bytes for name, cost in costs.items()}
    assert own["large"] >= 0.9 * LARGE
    if memory.kind() != memory.PROCESS:  # else the system doesn't forget, and the table says so
        assert own["small"] < LARGE / 3
    assert all(cost.samples == 2 and cost.seconds_per_sample > 0 for cost in costs.values())
    assert all(cost.load_seconds >= 0 and cost.memory == memory.kind() for cost in costs.values())


def test_a_peak_is_at_least_what_is_held() -> None:
    memory.reset_peak()
    assert memory.peak_bytes() >= memory.held_bytes() * 0.99 > 2**20
