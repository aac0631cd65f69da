"""What the benchmarks' commands share: how they end, the methods that flags name, and the run directories of these."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import tyro

from baselines.external import External, Recipe, read_recipe
from baselines.method import MethodContext
from benchmarks.datasets.finished_images import FinishedImages
from benchmarks.runs.arguments import BenchmarkArguments, RunArguments
from benchmarks.runs.execute import Benchmark, Shard, Share
from benchmarks.runs.generate import AnyMethod, ChosenMethod
from benchmarks.runs.manifest import new_manifest
from benchmarks.runs.schema import LAST, Dataset
from benchmarks.runs.store import RunDirectory
from editar.devices import is_lack_of_memory

EXTERNAL = "external:"
LISTED_FAILURES = 5  # of each method

Methods = dict[str, Callable[[], AnyMethod]]  # constructors, by the names of the rows


T = TypeVar("T")
EXIT_STATUS = 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM came. No Exception, so that no method's failure is made of it."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM, which batch systems send before they kill, raises Terminated in here, once: a second one ends the
    process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def default_device() -> str:
    """The GPU of this process (torchrun's LOCAL_RANK), or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """PyTorch computes on `count` threads of the CPU in here: how many there are moves the last digits of sums, and
    torchrun gives its processes one each."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_command(kind: type[T], work: Callable[[T], Any], program: str, arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code. An error that the user can fix becomes one message and code 2."""
    try:
        with terminable():
            work(tyro.cli(kind, args=arguments, prog=f"python -m {program}"))
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        print(
            "error: memory ran out; what was recorded is kept: make room or take a smaller --batch-size, and start the "
            "same command again to go on",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("\nstopped; start the same command again to go on", file=sys.stderr)
        return 130
    except Terminated:
        print("\nstopped by SIGTERM; what was recorded is kept: start the same command again to go on", file=sys.stderr)
        return EXIT_STATUS
    return 0


def print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def choose_methods(
    args: BenchmarkArguments,
    known: Mapping[str, Callable[[MethodContext], AnyMethod]],
    quick: Collection[str] | None = None,
) -> list[ChosenMethod]:
    """The methods that the flags choose. Raises ValueError for unknown ones and for two of a name.

    known: all methods of this benchmark. quick: those of them to take where none is named, None for all.
    """
    names = []
    if not args.methods and args.images is None:
        names += [(name, False) for name in known if quick is None or name in quick]
    for name in args.methods:
        names += [(each, False) for each in known] if name == "all" else [(name, True)]
    chosen = []
    for name, by_name in names:
        if name.startswith(EXTERNAL):
            recipe = read_recipe(Path(name.removeprefix(EXTERNAL)))
            if not args.dry_run:
                recipe.check()
            chosen.append(ChosenMethod(name=recipe.name, build=partial(_external, recipe)))
        elif name in known:
            chosen.append(ChosenMethod(name=name, build=known[name], by_name=by_name))
        else:
            listed = ", ".join(["all", *known, f"{EXTERNAL}RECIPE.toml"])
            raise ValueError(f"there is no method {name!r}; --methods takes {listed}")
    labels = [each.name for each in chosen] + ([] if args.label is None else [args.label])
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ValueError(f"two rows are called {twice!r}; change --methods, --label or the recipe's name")
    return chosen


def _external(recipe: Recipe, context: MethodContext) -> External:
    return External(recipe)  # which needs no context


def build_methods(
    args: BenchmarkArguments,
    chosen: Sequence[ChosenMethod],
    context: MethodContext,
    read_images: Callable[[Path], FinishedImages],
    sample_ids: Sequence[str],
) -> Methods:
    """A constructor for each row. Methods that lack something are left out with a message, unless the user named them.

    read_images: from the folder --images to the images in it. Raises DatasetError where some are missing.
    """
    methods: Methods = {}
    for each in chosen:
        if not each.by_name and (reason := each.lacks(context)):
            print(f"{each.name} is left out: {reason}", file=sys.stderr)
        else:
            methods[each.name] = partial(each.build, context)
    if args.images is not None and args.label is not None:
        images = read_images(args.images)
        print_notes(images.notes)
        if not args.allow_partial:
            images.require(sample_ids)
        methods[args.label] = lambda: images
    return methods


def run_methods(
    args: RunArguments,
    name: str,
    suite: str,
    benchmark: Benchmark,
    dataset: Dataset,
    methods: Methods,
    device: str,
    sample_ids: Sequence[str],
    order: Iterable[str] = (),
) -> list[RunDirectory]:
    """Makes and scores what is missing in the run directories of the methods, which are --out/<suite>/<name>/<method>/.

    order: the registry's, and so that of tables. Returns the runs, finished; none where another process renders the
    table: one that has samples left, or the first one where none had any.
    """
    positions = {method: position for position, method in enumerate(order)}
    runs = {}
    for row, build in methods.items():
        method = build()
        manifest = new_manifest(
            suite=suite,
            benchmark=name,
            method=row,
            card=method.card,
            position=positions.get(row, LAST),
            protocol=benchmark.protocol,
            dataset=dataset,
            method_settings=method.settings(),
            scoring=benchmark.scoring(),
            seed=args.seed,
            device=device,
            threads=args.threads,
        )
        given = method.has if isinstance(method, FinishedImages) else None
        runs[row] = RunDirectory(
            args.out / suite / name / row,
            manifest,
            benchmark.columns,
            fresh=args.fresh,
            given=given,
            allow_mixed=args.allow_mixed,
        )
    shard = Shard.parse(args.shard)
    with cpu_threads(args.threads), Share(runs, sample_ids, batch_size=args.batch_size, shard=shard) as share:
        share.generate(benchmark, methods)
        share.score(benchmark)
    merged = [run.merge(sample_ids, benchmark.facts, allow_missing=args.allow_partial) for run in runs.values()]
    report_failures(runs.values())
    if not all(merged):
        print("other processes have samples left; the last one, or the next start, renders the table", file=sys.stderr)
        return []
    if not share.worked and shard.index:
        print("nothing is left to do; process 0, or a start without --shard, renders the table", file=sys.stderr)
        return []
    return list(runs.values())


def report_failures(runs: Iterable[RunDirectory]) -> None:
    for run in runs:
        failed = [sample for sample in run.samples.values() if sample.error is not None]
        for sample in failed[:LISTED_FAILURES]:
            print(f"{run.method}: sample {sample.sample_id} failed: {sample.error}", file=sys.stderr)
        if failed:
            where = "samples.parquet has every error, and the next start tries again"
            print(f"{run.method}: {len(failed)} failed; {where}", file=sys.stderr)
