"""From records and methods to finished run directories: make the images, then score what was saved.

Batches are strided over processes, with nothing shared but the run directories. A batch is always the same slice of all
records, whoever takes it: networks may round differently in other company, so this is what makes the images of any
number of processes, resumed or not, the same to the last byte.
"""

import gc
import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from PIL import Image
from tqdm import tqdm

from baselines.method import Request
from benchmarks.runs import memory
from benchmarks.runs.generate import Asker, Maker, describe
from benchmarks.runs.samples import Sample, SampleLog, remembered
from benchmarks.runs.store import RunDirectory

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


class Task(Protocol):
    """What a benchmark brings along: how a record, known by its sample id, is asked for and scored."""

    def request(self, sample_id: str) -> Request: ...

    def score(
        self, sample_ids: Sequence[str], edited: Mapping[str, Sequence[Image.Image]]
    ) -> Mapping[str, Sequence["Scored"]]:
        """The scores of the images of several methods (by name), for each in the order of `sample_ids`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Scored:
    """scores: by column, None where undefined; undefined: why, for each of these. counts: see Sample."""

    scores: Mapping[str, float | None]
    undefined: Mapping[str, str]
    counts: Mapping[str, Sequence[int]] | None = None


def sample_seed(seed: int, protocol: str, sample_id: str) -> int:
    """The seed of one sample, 63 bits: it depends on no other sample, order, process or batch."""
    digest = hashlib.sha256(f"{seed}|{protocol}|{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def run(
    task: Task,
    runs: Mapping[str, RunDirectory],
    methods: Mapping[str, Callable[[], Maker]],
    sample_ids: Sequence[str],
    *,
    batch_size: int,
    shard: Shard,
) -> bool:
    """Makes and scores this process's share of `sample_ids` for all methods. What is done already is not done again.

    Returns whether anything was left to do.
    """
    mine = shard.share(sample_ids, batch_size)
    open_runs = {
        name: each
        for name, each in runs.items()
        if any(each.to_make(sample_id) or each.to_score(sample_id) for sample_id in mine)
    }
    with ExitStack() as stack:
        logs = {}
        for name, each in open_runs.items():
            logs[name] = stack.enter_context(closing(SampleLog(each.folder, shard.index)))
            each.remove_torn_images(shard.index)
            each.reload()  # a process that had the log until now may have done some of it
        for name, each in open_runs.items():
            if missing := set(filter(each.to_make, mine)):
                make_images(task, each, methods[name], mine, missing, logs[name], batch_size)
        if open_runs:
            score_images(task, open_runs, mine, logs, batch_size)
    return bool(open_runs)


def make_images(
    task: Task,
    run: RunDirectory,
    build: Callable[[], Maker],
    mine: Sequence[str],
    missing: Collection[str],
    log: SampleLog,
    batch_size: int,
) -> None:
    """missing: those of `mine` that are to be made; asking again would open every image that is there once more."""
    gc.collect()  # what is left of the method before this one
    memory.reset_peak()
    before, start = memory.held_bytes(), time.perf_counter()
    method = build()
    if load := getattr(method, "load", None):
        load()
    log.begin_making(time.perf_counter() - start, before)
    asker = Asker(method)
    with progress(f"{run.method}: make", len(mine), len(mine) - len(missing)) as bar:
        for batch in batches(mine, batch_size, missing.__contains__):
            start = time.perf_counter()
            answers = asker.ask([task.request(sample_id) for sample_id in batch])
            seconds = (time.perf_counter() - start) / len(batch)
            samples = []
            for sample_id, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Image.Image):
                    digest = run.write_image(sample_id, answer, log.rank)
                    samples.append(Sample(sample_id=sample_id, seconds=seconds, image_sha256=digest))
                else:
                    samples.append(Sample(sample_id=sample_id, seconds=seconds, error=answer))
            record(run, log, samples, time.perf_counter() - start)
            bar.update(len(batch))
    log.end_making()


def score_images(
    task: Task, runs: Mapping[str, RunDirectory], mine: Sequence[str], logs: Mapping[str, SampleLog], batch_size: int
) -> None:
    """Scores the saved images of all methods together, so that what depends on the source alone is computed once."""
    memory.reset_peak()
    total = len(mine) * len(runs)
    todo = sum(each.to_score(sample_id) for each in runs.values() for sample_id in mine)

    def wanted(sample_id: str) -> bool:
        return any(each.to_score(sample_id) for each in runs.values())

    with progress("score", total, total - todo) as bar:
        for batch in batches(mine, batch_size, wanted):
            start = time.perf_counter()
            results = score_batch(task, runs, batch)
            seconds = (time.perf_counter() - start) / len(results)
            for name, samples in results.items():
                record(runs[name], logs[name], samples, seconds)
                bar.update(len(samples))


def score_batch(task: Task, runs: Mapping[str, RunDirectory], batch: Sequence[str]) -> dict[str, list[Sample]]:
    """What becomes of the samples in `batch` that are to be scored, by method."""
    results: dict[str, list[Sample]] = {}
    groups: dict[tuple[str, ...], dict[str, list[Image.Image]]] = {}
    for name, each in runs.items():
        images: dict[str, Image.Image] = {}
        for sample_id in filter(each.to_score, batch):
            try:
                images[sample_id] = each.read_image(sample_id)
            except ValueError as error:  # made again at the next start
                lost = replace(each.samples[sample_id], error=str(error), image_sha256=None)
                results.setdefault(name, []).append(lost)
        if images:  # methods that lack scores for the same samples, mostly all, are scored together
            groups.setdefault(tuple(images), {})[name] = list(images.values())
    for sample_ids, edited in groups.items():
        for name, answers in _score(task, sample_ids, edited).items():
            for sample_id, answer in zip(sample_ids, answers, strict=True):
                known = replace(runs[name].samples[sample_id], error=None)
                if isinstance(answer, str):
                    sample = replace(known, error=answer)
                elif bad := [column for column, value in answer.scores.items() if not _sound(value)]:
                    sample = replace(known, error=f"scoring gave no finite number for {', '.join(bad)}")
                else:
                    sample = replace(known, scores=answer.scores, undefined=answer.undefined, counts=answer.counts)
                results.setdefault(name, []).append(sample)
    return results


def _score(
    task: Task, sample_ids: Sequence[str], edited: Mapping[str, Sequence[Image.Image]]
) -> dict[str, list[Scored | str]]:
    """As Task.score, with the text of the error for what can't be scored: a batch that fails is taken apart."""
    try:
        return {name: list(scored) for name, scored in task.score(sample_ids, edited).items()}
    except Exception as error:
        problem, no_memory = describe(error), memory.is_lack_of(error)
    if no_memory:  # and the error is gone here, with what its frames held
        memory.release()
    if len(sample_ids) > 1:
        results: dict[str, list[Scored | str]] = {name: [] for name in edited}
        for position, sample_id in enumerate(sample_ids):
            one = {name: [images[position]] for name, images in edited.items()}
            for name, answers in _score(task, [sample_id], one).items():
                results[name] += answers
        return results
    if len(edited) > 1:
        return {name: _score(task, sample_ids, {name: images})[name] for name, images in edited.items()}
    return {name: [f"scoring failed: {problem}"] for name in edited}


def _sound(score: float | None) -> bool:
    return score is None or math.isfinite(score)


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
