"""What a process holds of the samples that are behind it: some facts, no images and no scores."""

import tracemalloc
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from baselines.method import EditRequest
from benchmarks.datasets.piebench import read_piebench
from benchmarks.runs.execute import Images, Shard
from benchmarks.runs.schema import Sample
from tests.benchmarks.killable import BATCH, Noise, PixelBenchmark, open_run, run
from tests.benchmarks.tiny import SIDE, write_piebench

METHODS = ("noise", "again")


class Watch:
    """Counts the images that are alive."""

    def __init__(self) -> None:
        self.alive: list[weakref.ref[Image.Image]] = []
        self.most = 0

    def see(self, images: Sequence[Image.Image]) -> None:
        self.alive = [each for each in self.alive if each() is not None] + list(map(weakref.ref, images))
        self.most = max(self.most, len(self.alive))


class WatchedNoise(Noise):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        images = super().edit(requests)
        self.watch.see([*images, *(request.image for request in requests)])
        return images


class WatchedBenchmark(PixelBenchmark):
    watch = Watch()

    def score(self, samples: Mapping[str, Sequence[Sample]], images: Images) -> dict[str, list[Sample]]:
        for each in images.values():
            self.watch.see(each)
        return super().score(samples, images)


def go(folder: Path, count: int) -> tuple[int, int]:
    """Bytes that Python holds more than before the run, at their most; images alive at once."""
    write_piebench(folder / "data", count)
    dataset = read_piebench(folder / "data", SIDE)
    benchmark = WatchedBenchmark(dataset)
    benchmark.watch = Watch()
    runs = {name: open_run(folder / name, dataset, name) for name in METHODS}
    ids = [record.sample_id for record in dataset.records]
    tracemalloc.start()
    methods = dict.fromkeys(METHODS, lambda: WatchedNoise(benchmark.watch))
    run(benchmark, runs, methods, ids, batch_size=BATCH, shard=Shard())
    _, peak = tracemalloc.get_traced_memory()
    assert all(each.merge(ids, benchmark.facts) for each in runs.values())
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(sample.status == "done" for each in runs.values() for sample in each.samples.values())
    return max(peak, held), benchmark.watch.most


def test_a_sample_leaves_a_few_hundred_bytes(tmp_path: Path) -> None:
    go(tmp_path / "first", 8)  # imports what is imported late
    counts = (40, 160)
    (few, images), (many, more_images) = (go(tmp_path / str(count), count) for count in counts)
    assert images == more_images <= 2 * len(METHODS) * BATCH
    assert many - few < 600 * len(METHODS) * (counts[1] - counts[0])  # it would be 900 with the scores
