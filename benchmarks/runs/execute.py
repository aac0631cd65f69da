"""From records and methods to run directories: make the images, then score what was saved.

Batches are strided over processes, with nothing shared but the run directories. A batch is always the same slice of all
records, whoever takes it: networks may round differently in other company, so this is what makes the images of any
number of processes, resumed or not, the same to the last byte.
"""

import gc
import hashlib
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, TypeVar

from PIL import Image
from tqdm import tqdm

from baselines.method import NotedImage, Request
from benchmarks.runs import memory
from benchmarks.runs.generate import AnyMethod, GuardedMethod, describe
from benchmarks.runs.log import SampleLog
from benchmarks.runs.schema import Facts, Sample, Scoring
from benchmarks.runs.store import RunDirectory, remembered
from editar.devices import is_lack_of_memory

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Process `index` of `count`: it takes the batches index, index + count, index + 2 count ..."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"shard {self.index}/{self.count}: the first number goes from 0 to {self.count - 1} (--shard)"
            )

    @classmethod
    def parse(cls, text: str | None) -> "Shard":
        """Of "i/n", which torchrun's processes (its variables RANK and WORLD_SIZE) share among them."""
        index, _, count = ("0/1" if text is None else text).partition("/")
        if not (index.isdecimal() and count.isdecimal()):
            raise ValueError(f"--shard is {text!r}; give it as i/n, e.g. 0/4 for the first of four processes")
        outer = cls(index=int(index), count=int(count))
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        return cls(index=outer.index * ranks + int(os.environ.get("RANK", "0")), count=outer.count * ranks)

    def share(self, sample_ids: Sequence[str], batch_size: int) -> list[str]:
        """This process's batches, one after the other: all are full but the last of `sample_ids`."""
        starts = range(self.index * batch_size, len(sample_ids), self.count * batch_size)
        return [sample_id for start in starts for sample_id in sample_ids[start : start + batch_size]]


Images = Mapping[str, Sequence[Image.Image]]  # by method


class Benchmark(Protocol):
    """How the records of a data set, known by their sample ids, become requests, and images scores.

    columns: the names of the scores. facts: what samples.parquet says of each sample besides its results.
    """

    protocol: str
    columns: tuple[str, ...]

    @property
    def facts(self) -> Facts: ...

    def scoring(self) -> Scoring: ...

    def request(self, sample_id: str) -> Request: ...

    def score(self, samples: Mapping[str, Sequence[Sample]], images: Images) -> Mapping[str, Sequence[Sample]]:
        """The samples of several methods (by name) with their scores. All methods have the same sample ids, in the
        same order as their images."""
        ...


def sample_seed(seed: int, protocol: str, sample_id: str) -> int:
    """The seed of one sample, 63 bits: it depends on no other sample, order, process or batch."""
    digest = hashlib.sha256(f"{seed}|{protocol}|{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


class Share:
    """This process's share of the samples in several run directories, whose logs it holds while it is open.

    worked: whether anything was left to do. What is done already is not done again.
    """

    def __init__(
        self, runs: Mapping[str, RunDirectory], sample_ids: Sequence[str], *, batch_size: int, shard: Shard
    ) -> None:
        self.batch_size = batch_size
        self.sample_ids = shard.share(sample_ids, batch_size)
        # What is whole now stays so: this opens every image that is there, and is done once.
        missing = {name: list(filter(run.to_make, self.sample_ids)) for name, run in runs.items()}
        self._missing = {name: sample_ids for name, sample_ids in missing.items() if sample_ids}
        self.runs = {
            name: run for name, run in runs.items() if name in self._missing or any(map(run.to_score, self.sample_ids))
        }
        self.worked = bool(self.runs)
        self._rank = shard.index
        self._logs: dict[str, SampleLog] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Share":
        with ExitStack() as stack:
            for name, run in self.runs.items():
                self._logs[name] = stack.enter_context(closing(SampleLog(run.folder, self._rank, run.source)))
                run.remove_torn_images(self._rank)
                run.reload()  # a process that had the log until now may have done some of it
                run.require_source(run.source)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def generate(self, benchmark: Benchmark, methods: Mapping[str, Callable[[], AnyMethod]]) -> None:
        """Makes the images that are missing, one method after the other."""
        for name, run in self.runs.items():
            if missing := set(filter(run.to_make, self._missing.get(name, ()))):
                self._generate(benchmark, methods[name], run, self._logs[name], missing)

    def _generate(
        self,
        benchmark: Benchmark,
        build: Callable[[], AnyMethod],
        run: RunDirectory,
        log: SampleLog,
        missing: Collection[str],
    ) -> None:
        """missing: of this process's samples, those whose image is to be made."""
        gc.collect()  # what is left of the method before this one
        memory.reset_peak()
        before, start = memory.held_bytes(), time.perf_counter()
        method = build()
        if load := getattr(method, "load", None):
            load()
        log.begin_making(time.perf_counter() - start, before)
        guarded = GuardedMethod(method)
        total = len(self.sample_ids)
        with progress(f"{run.method}: make", total, total - len(missing)) as bar:
            for batch in batches(self.sample_ids, self.batch_size, missing.__contains__):
                start = time.perf_counter()
                answers = guarded.generate([benchmark.request(sample_id) for sample_id in batch])
                seconds = (time.perf_counter() - start) / len(batch)
                samples = []
                for sample_id, answer in zip(batch, answers, strict=True):
                    if isinstance(answer, str):
                        samples.append(Sample(sample_id=sample_id, seconds=seconds, error=answer))
                        continue
                    image, notes = (answer.image, answer.notes) if isinstance(answer, NotedImage) else (answer, None)
                    digest = run.write_image(sample_id, image, log.rank)
                    samples.append(Sample(sample_id=sample_id, seconds=seconds, image_sha256=digest, notes=notes))
                record(run, log, samples, time.perf_counter() - start)
                bar.update(len(batch))
        log.end_making()

    def score(self, benchmark: Benchmark) -> None:
        """Scores the saved images of all methods together, so that what depends on the source alone is computed
        once."""
        memory.reset_peak()
        total = len(self.sample_ids) * len(self.runs)
        todo = sum(run.to_score(sample_id) for run in self.runs.values() for sample_id in self.sample_ids)

        def wanted(sample_id: str) -> bool:
            return any(run.to_score(sample_id) for run in self.runs.values())

        with progress("score", total, total - todo) as bar:
            for batch in batches(self.sample_ids, self.batch_size, wanted):
                start = time.perf_counter()
                results = score_batch(benchmark, self.runs, batch)
                seconds = (time.perf_counter() - start) / len(results)
                for name, samples in results.items():
                    record(self.runs[name], self._logs[name], samples, seconds)
                    bar.update(len(samples))


def score_batch(
    benchmark: Benchmark, runs: Mapping[str, RunDirectory], batch: Sequence[str]
) -> dict[str, list[Sample]]:
    """What becomes of the samples in `batch` that are to be scored, by method."""
    results: dict[str, list[Sample]] = {}
    alike: dict[tuple[str, ...], dict[str, list[Image.Image]]] = {}
    for name, run in runs.items():
        images: dict[str, Image.Image] = {}
        for sample_id in filter(run.to_score, batch):
            try:
                images[sample_id] = run.read_image(sample_id)
            except ValueError as error:  # made again at the next start
                lost = replace(run.samples[sample_id], error=str(error), image_sha256=None)
                results.setdefault(name, []).append(lost)
        if images:  # methods that lack scores for the same samples, mostly all, are scored together
            alike.setdefault(tuple(images), {})[name] = list(images.values())
    for sample_ids, edited in alike.items():
        samples = {name: [runs[name].samples[sample_id] for sample_id in sample_ids] for name in edited}
        for name, scored in _score(benchmark, samples, edited).items():
            results.setdefault(name, []).extend(scored)
    return results


def _score(benchmark: Benchmark, samples: Mapping[str, Sequence[Sample]], images: Images) -> dict[str, list[Sample]]:
    """As Benchmark.score, with the error in what can't be scored: a batch that fails is taken apart."""
    try:
        table = benchmark.score(samples, images)
        return {name: [_checked(each, benchmark.columns) for each in scored] for name, scored in table.items()}
    except Exception as error:
        problem, no_memory = describe(error), is_lack_of_memory(error)
    if no_memory:  # and the error is gone here, with what its frames held
        memory.release()
    count = len(next(iter(samples.values())))
    if count > 1:
        results: dict[str, list[Sample]] = {name: [] for name in samples}
        for at in range(count):
            one = {name: [each[at]] for name, each in samples.items()}
            its_images = {name: [each[at]] for name, each in images.items()}
            for name, scored in _score(benchmark, one, its_images).items():
                results[name] += scored
        return results
    if len(samples) > 1:
        return {name: _score(benchmark, {name: samples[name]}, {name: images[name]})[name] for name in samples}
    return {name: [replace(each, error=f"scoring failed: {problem}") for each in samples[name]] for name in samples}


def _checked(sample: Sample, columns: Sequence[str]) -> Sample:
    try:
        sample.check(columns)
    except ValueError as error:
        return replace(sample, scores=None, undefined=None, counts=None, error=f"scoring gave {error}")
    return sample


def record(run: RunDirectory, log: SampleLog, samples: Sequence[Sample], seconds: float) -> None:
    log.append(samples, seconds)
    run.samples |= remembered(samples)


def batches(items: Sequence[T], size: int, wanted: Callable[[T], bool]) -> Iterator[list[T]]:
    """The wanted items of each slice of `size` items."""
    for start in range(0, len(items), size):
        if batch := [item for item in items[start : start + size] if wanted(item)]:
            yield batch


def progress(label: str, total: int, done: int) -> "tqdm[None]":
    """A bar with rate and time left, on a line for each of torchrun's processes; in a log file a line now and then."""
    terminal = sys.stderr.isatty()
    return tqdm(
        desc=label,
        total=total,
        initial=done,
        unit="image",
        mininterval=0.1 if terminal else 10.0,
        dynamic_ncols=True,
        position=int(os.environ.get("LOCAL_RANK", "0")) if terminal else 0,
    )
