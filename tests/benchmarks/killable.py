"""A run that tests can start as a process of its own, kill, and start again.

python -m tests.benchmarks.killable DATA OUT CALLS [shard]: CALLS gets one line for each image that is made, "edit ID",
and one for each record that is scored for all methods, "score ID".
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from baselines.method import EditRequest
from benchmarks.datasets.piebench import PieBench, read_piebench
from benchmarks.runs.execute import Scored, Shard, run, sample_seed
from benchmarks.runs.manifest import new_manifest
from benchmarks.runs.store import RunDirectory
from tests.benchmarks.tiny import SIDE

BATCH = 4
COLUMNS = ("difference", "brightest")


class PixelTask:
    """Scores without networks: the mean difference to the source, and the brightest pixel where it isn't white."""

    def __init__(self, dataset: PieBench, calls: Path | None = None, seconds: float = 0.0) -> None:
        self.records = {record.sample_id: record for record in dataset.records}
        self.facts = {name: {"edit_type": record.edit_type} for name, record in self.records.items()}
        self.calls = calls
        self.seconds = seconds

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

    def score(self, sample_ids: Sequence[str], edited: Mapping[str, Sequence[Image.Image]]) -> dict[str, list[Scored]]:
        write_calls(self.calls, "score", sample_ids)
        time.sleep(self.seconds)
        results: dict[str, list[Scored]] = {}
        for name, images in edited.items():
            results[name] = []
            for sample_id, image in zip(sample_ids, images, strict=True):
                edit, source = (np.asarray(each, dtype=float) for each in (image, self.records[sample_id].image()))
                bright = float(edit.max())
                results[name].append(
                    Scored(
                        scores={
                            "difference": float(np.abs(edit - source).mean()),
                            "brightest": bright if bright < 250 else None,
                        },
                        undefined={} if bright < 250 else {"brightest": "the image has white"},
                    )
                )
        return results


class Noise:
    """Mixes noise of the sample's own seed into the image."""

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
    """The run directory of a PixelTask; `changes` replaces arguments of the manifest."""
    arguments: dict[str, Any] = {
        **{"suite": "tiny", "benchmark": "pixels", "method": method, "protocol": "pixels/v1"},
        "dataset": {"name": "tiny", "digest": data.digest, "records": len(data.records)},
        **{"method_settings": {"strength": 0.5}, "scoring": {"precision": "float32"}, "seed": 0, "device": "cpu"},
        **changes,
    }
    return RunDirectory(folder, new_manifest(**arguments), COLUMNS, fresh=fresh)


def main(data: str, out: str, calls: str, shard: str | None = None) -> None:
    dataset = read_piebench(Path(data), SIDE)
    runs = {name: open_run(Path(out) / name, dataset, name) for name in ("noise", "again")}
    task = PixelTask(dataset, Path(calls), seconds=0.01)
    methods = dict.fromkeys(runs, lambda: Noise(Path(calls), seconds=0.02))
    sample_ids = [record.sample_id for record in dataset.records]
    run(task, runs, methods, sample_ids, batch_size=BATCH, shard=Shard.parse(shard))
    for each in runs.values():
        each.merge(sample_ids, task.facts)


if __name__ == "__main__":
    main(*sys.argv[1:])
