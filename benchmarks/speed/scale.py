"""`python -m benchmarks.speed scale`: what a benchmark costs by itself as it grows, in seconds and in memory.

A method and scoring networks that cost nothing go the way of `benchmarks.piebench` on tiny images, at growing numbers
of records, each number in a process of its own: read the data set, make and score the images of all methods, merge,
start again with all done, render the tables. Time per sample and memory should be the same for every number.
"""

import gc
import hashlib
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from baselines.method import EditRequest, MethodCard
from benchmarks.cli import Methods, run_methods
from benchmarks.datasets.piebench import EDIT_TYPES, IMAGES, MAPPING, read_piebench
from benchmarks.runs import memory
from benchmarks.runs.arguments import BenchmarkArguments
from benchmarks.runs.edit_benchmark import EditBenchmark
from benchmarks.runs.schema import Dataset, read_manifest
from benchmarks.speed.measure import SpeedSettings, in_words, report_speed, table
from metrics.networks.backbones import Backbones
from reports.tables.piebench import render

SIDE = 16  # pixels; SSIM's window has 11
BENCHMARK = "piebench"
MiB = 2**20
WARM = 32  # records


@dataclass(frozen=True, kw_only=True)
class ScaleSpeed(SpeedSettings):
    """Example: python -m benchmarks.speed scale --records 500 1000

    Seconds and memory of a whole PIE-Bench with a synthetic method, at growing numbers of records.
    """

    records: tuple[int, ...] = (500, 1000, 2500, 5000)
    """Each is run by itself."""
    methods: int = 15
    batch_size: int = 8
    threads: int = 1

    def __post_init__(self) -> None:
        for flag, least in (("--records", min(self.records, default=0)), ("--methods", self.methods)):
            if least < 1:
                raise ValueError(f"{flag} has {least}; it must be at least 1")

    def run(self) -> None:
        report_speed(self, self._measure, report)

    def _measure(self) -> dict[str, Any]:
        # A process is never smaller than it once was, so each number gets a new one.
        new = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=new, initializer=_begin, max_tasks_per_child=1) as pool:
            return {"runs": [pool.submit(measure, self, count).result() for count in self.records]}


def _begin() -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # main memory is what is measured


def measure(settings: ScaleSpeed, count: int) -> dict[str, Any]:
    """Seconds, of the clock and of the CPU, and the peak of memory in bytes of each step, and what the process held
    before the first."""
    torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        go(settings, write_records(folder / "warm", WARM))  # what is loaded and compiled once is no part of it
        write_records(folder / "data", count)
        gc.collect()
        held = memory.held_bytes()
        return {"records": count, "held_bytes": held, "steps": go(settings, folder / "data")}


def go(settings: ScaleSpeed, data: Path) -> dict[str, dict[str, float]]:
    """The whole benchmark on `data`, beside which the runs go."""
    args = BenchmarkArguments(out=data.with_suffix(".out"), batch_size=settings.batch_size)
    steps: dict[str, dict[str, float]] = {}
    with step(steps, "read"):
        dataset = read_piebench(data, SIDE)
    network = MeanColours()
    networks = Backbones(structure=network, perceptual=network, clip=network)
    benchmark = EditBenchmark(dataset, networks, "float32", args.seed, "cpu")
    methods: Methods = {f"synthetic-{i:02}": partial(SyntheticMethod, i) for i in range(settings.methods)}
    sample_ids = [record.sample_id for record in dataset.records]
    facts = Dataset(name="noise", digest=dataset.digest, records=len(dataset.records))

    start = partial(run_methods, args, BENCHMARK, "synthetic", benchmark, facts, methods, "cpu", sample_ids)
    with step(steps, "make and score"):
        runs = start()
    # Each method's part forgot the peak before it; what came after the last, scoring and merging, is the step's own.
    peaks = [manifest.peak_memory_bytes for run in runs if (manifest := read_manifest(run.folder))]
    steps["make and score"]["peak_bytes"] = max(*peaks, steps["make and score"]["peak_bytes"])
    with step(steps, "start again"):
        runs = start()
    with step(steps, "render"):
        render([run.folder for run in runs], args.out / "reports" / "synthetic")
    return steps


@contextmanager
def step(steps: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    memory.reset_peak()
    start, cpu = time.perf_counter(), time.process_time()
    yield
    steps[name] = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": memory.peak_bytes(),
    }


def report(figures: dict[str, Any]) -> str:
    """The figures as text."""
    settings, columns = figures["settings"], {}
    for run in figures["runs"]:
        samples, steps = run["records"] * settings["methods"], run["steps"]
        columns[f"{run['records']} records"] = {
            "samples": samples,
            "MiB before": run["held_bytes"] / MiB,
            **{f"{name}, s": 1000 * each["cpu_seconds"] / samples for name, each in steps.items()},
            **{f"{name}, MiB": (each["peak_bytes"] - run["held_bytes"]) / MiB for name, each in steps.items()},
            "s by the clock": sum(each["seconds"] for each in steps.values()),
        }
    return (
        f"A synthetic PIE-Bench of {SIDE} x {SIDE} pixels, {in_words(settings)}: CPU seconds per 1000 samples, and MiB "
        f"at the peak beyond what was held before\n{table(columns, dict.fromkeys(columns, '.3f'))}"
    )


def write_records(root: Path, count: int) -> Path:
    """A PIE-Bench of `count` records with images of noise and a mask of some rows; returns `root`."""
    entries = {}
    for number in range(count):
        name = f"{number % len(EDIT_TYPES)}/{number:012d}.png"
        path = root / IMAGES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number)).save(path)
        entries[f"{number:012d}"] = {
            "image_path": name,
            "original_prompt": f"a picture of [noise] {number}",
            "editing_prompt": f"a picture of [other noise] {number}",
            "editing_instruction": f"change the noise of picture {number}",
            "editing_type_id": str(number % len(EDIT_TYPES)),
            "blended_word": "",
            "mask": [each for row in range(4, 8) for each in (SIDE * row + 4, 8)],
        }
    (root / MAPPING).write_text(json.dumps(entries), encoding="utf-8")
    return root


def noise(seed: int) -> np.ndarray:
    """uint8 (SIDE, SIDE, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


class SyntheticMethod:
    """Answers with noise of the sample's seed and its own number."""

    card = MethodCard()

    def __init__(self, number: int) -> None:
        self.number = number

    def settings(self) -> dict[str, Any]:
        return {"number": self.number}

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        return [Image.fromarray(noise(request.seed ^ self.number)) for request in requests]


class MeanColours:
    """The mean colours of 4 x 4 parts, in the place of each network's features."""

    official, name, digest = False, "mean-colours", hashlib.sha256(b"mean-colours").hexdigest()

    def keys(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 4).flatten(2).transpose(1, 2)

    def features(self, images: Tensor) -> list[Tensor]:
        return [F.adaptive_avg_pool2d(images, 4)]

    def distance(self, features_a: list[Tensor], features_b: list[Tensor]) -> Tensor:
        return (features_a[0] - features_b[0]).square().mean((1, 2, 3))

    def image_embedding(self, images: Tensor) -> Tensor:
        return F.normalize(F.adaptive_avg_pool2d(images, 4).flatten(1), dim=-1)

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        return [False] * len(texts)

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        rows = [np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)[np.arange(48) % 32] for text in texts]
        return F.normalize(torch.from_numpy(np.stack(rows)).float(), dim=-1)
