"""A run that tests can start as a process of its own, kill, and start again.

python -m tests.benchmarks.killable DATA OUT CALLS [shard]: CALLS gets one line for each image that is made, "edit ID",
and one for each record that is scored for all methods, "score ID".
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from baselines.method import EditRequest, MethodCard
from benchmarks.datasets.piebench import PieBench, read_piebench
from benchmarks.runs.execute import Benchmark, Images, Shard, Share, sample_seed
from benchmarks.runs.generate import AnyMethod
from benchmarks.runs.manifest import new_manifest
from benchmarks.runs.schema import Dataset, Sample, Scoring
from benchmarks.runs.store import RunDirectory
from tests.benchmarks.tiny import SIDE

BATCH = 4
COLUMNS = ("difference", "brightest")


class PixelBenchmark:
    """Scores without networks: the mean difference to the source, and the brightest pixel where it isn't white."""

    protocol = "pixels/v1"
    columns: tuple[str, ...] = COLUMNS

    def __init__(self, dataset: PieBench, calls: Path | None = None, seconds: float = 0.0) -> None:
        self.records = {record.sample_id: record for record in dataset.records}
        self.facts = {name: {"edit_type": record.edit_type} for name, record in self.records.items()}
        self.calls = calls
        self.seconds = seconds

    def scoring(self) -> Scoring:
        return Scoring(precision="float32", backbones={})

    def request(self, sample_id: str) -> EditRequest:
        record = self.records[sample_id]
        return EditRequest(
            sample_id=sample_id,
            image=record.image(),
            instruction=record.instruction,
            source_prompt=record.source_prompt,
            target_prompt=record.target_prompt,
            blend_words=record.blend_words,
            seed=sample_seed(0, "pixels/v1", sample_id),
        )

    def score(self, samples: Mapping[str, Sequence[Sample]], images: Images) -> dict[str, list[Sample]]:
        write_calls(self.calls, "score", [sample.sample_id for sample in next(iter(samples.values()))])
        time.sleep(self.seconds)
        return {
            name: [self._scored(sample, image) for sample, image in zip(samples[name], images[name], strict=True)]
            for name in samples
        }

    def _scored(self, sample: Sample, image: Image.Image) -> Sample:
        source = self.records[sample.sample_id].image()
        edit, original = (np.asarray(each, dtype=float) for each in (image, source))
        bright = float(edit.max())
        difference = float(np.abs(edit - original).mean())
        return sample.scored({"difference": difference, "brightest": bright if bright < 250 else "the image has white"})


class Noise:
    """Mixes noise of the sample's own seed into the image."""

    card = MethodCard()

    def __init__(self, calls: Path | None = None, seconds: float = 0.0) -> None:
        self.calls = calls
        self.seconds = seconds

    def settings(self) -> dict[str, Any]:
        return {"strength": 0.5}

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        write_calls(self.calls, "edit", [request.sample_id for request in requests])
        time.sleep(self.seconds)
        return [self._one(request) for request in requests]

    def _one(self, request: EditRequest) -> Image.Image:
        noise = np.random.default_rng(request.seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        return Image.blend(request.image, Image.fromarray(noise), 0.5)


def write_calls(calls: Path | None, kind: str, sample_ids: Sequence[str]) -> None:
    if calls is not None:
        with calls.open("a") as file:
            file.write("".join(f"{kind} {sample_id}\n" for sample_id in sample_ids))


def open_run(folder: Path, data: PieBench, method: str = "noise", fresh: bool = False, **changes: Any) -> RunDirectory:
    """The run directory of a PixelBenchmark; `changes` replaces arguments of the manifest."""
    arguments: dict[str, Any] = {
        **{"suite": "tiny", "benchmark": "pixels", "method": method, "protocol": "pixels/v1", "card": MethodCard()},
        "dataset": Dataset(name="tiny", digest=data.digest, records=len(data.records)),
        **{"method_settings": {"strength": 0.5}, "scoring": Scoring(precision="float32", backbones={})},
        **{"seed": 0, "device": "cpu", "threads": 2},
        **changes,
    }
    return RunDirectory(folder, new_manifest(**arguments), COLUMNS, fresh=fresh)


def run(
    benchmark: Benchmark,
    runs: Mapping[str, RunDirectory],
    methods: Mapping[str, Callable[[], AnyMethod]],
    sample_ids: Sequence[str],
    *,
    batch_size: int,
    shard: Shard,
) -> bool:
    """Makes and scores this process's share; returns whether anything was left to do."""
    with Share(runs, sample_ids, batch_size=batch_size, shard=shard) as share:
        share.generate(benchmark, methods)
        share.score(benchmark)
    return share.worked


def main(data: str, out: str, calls: str, shard: str | None = None) -> None:
    dataset = read_piebench(Path(data), SIDE)
    runs = {name: open_run(Path(out) / name, dataset, name) for name in ("noise", "again")}
    benchmark = PixelBenchmark(dataset, Path(calls), seconds=0.01)
    methods = dict.fromkeys(runs, lambda: Noise(Path(calls), seconds=0.02))
    sample_ids = [record.sample_id for record in dataset.records]
    run(benchmark, runs, methods, sample_ids, batch_size=BATCH, shard=Shard.parse(shard))
    for each in runs.values():
        each.merge(sample_ids, benchmark.facts)


if __name__ == "__main__":
    main(*sys.argv[1:])
