"""What the benchmarks' command lines share: flags, the methods that they name, and the run directories of these."""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, TypeVar

import tyro

from baselines.external import External, Recipe, read_recipe
from baselines.method import MethodContext, Requirements, Unsupported
from benchmarks.datasets.finished_images import FinishedImages
from benchmarks.runs.execute import Benchmark, Shard, Share
from benchmarks.runs.generate import AnyMethod
from benchmarks.runs.manifest import new_manifest
from benchmarks.runs.schema import LAST, Dataset
from benchmarks.runs.store import RunDirectory

EXTERNAL = "external:"
DEFAULT_OUT = Path("runs")
LISTED_FAILURES = 5  # of each method

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # becomes the name of a folder

Methods = dict[str, Callable[[], AnyMethod]]  # constructors, by the names of the rows


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """The flags of whatever makes run directories."""

    out: Path = DEFAULT_OUT
    """Where the run directories go."""
    limit: int | None = None
    """Only the first records, in the order of their ids."""
    seed: int = 0
    """All randomness comes from it."""
    batch_size: int = 8
    """Images at a time."""
    shard: str | None = None
    """i/n: this process does every n-th batch, from the i-th (0 to n-1). torchrun's processes share without it."""
    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Remove what earlier runs of these methods left."""
    allow_partial: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Render the table although samples are missing; their number is stamped on it."""

    def __post_init__(self) -> None:
        """Raises ValueError that names the flag."""
        for flag, value in (("--limit", self.limit), ("--batch-size", self.batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"{flag} is {value}; it must be at least 1")
        shard = Shard.parse(self.shard)
        if self.fresh and shard.count > 1:
            raise ValueError(
                "--fresh with several processes: each would remove the others' work; start one with it first"
            )

    def reports(self, suite: str) -> Path:
        """Where the tables belong: reports/<suite>/, or below --out where that was given."""
        return (Path("reports") if self.out == DEFAULT_OUT else self.out / "reports") / suite


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments(RunArguments):
    """The flags that every benchmark of methods has."""

    suite: Literal["miniature", "paper"] = "miniature"
    """miniature: embedded data and small networks, offline. paper: the official ones."""
    methods: tuple[str, ...] = ()
    """Names of methods, or all that there are networks for; external:RECIPE.toml is a method of your own. Without names
    and --images: PIE-Bench's quick rows (QUICK in baselines/__init__.py), all of translation."""
    data: Path | None = None
    """Folder of the data set."""
    weights: Path | None = None
    """Folder of weights, of the methods and of the scoring networks."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only say what each method needs, what of it is here, what would be fetched, and what it takes."""
    images: Path | None = None
    """Score this folder of finished images."""
    label: str | None = None
    """The row's name for --images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.images is None) != (self.label is None):
            raise ValueError("--images and --label go together: the folder, and the name of its row")
        if self.label is not None and not _LABEL.fullmatch(self.label):
            raise ValueError(f"--label is {self.label!r}; use letters, digits, '-', '_' and '.', at most 64")


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


def run_command(kind: type[T], work: Callable[[T], Any], program: str, arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code. An error that the user can fix becomes one message and code 2."""
    try:
        with terminable():
            work(tyro.cli(kind, args=arguments, prog=f"python -m {program}"))
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; start the same command again to go on", file=sys.stderr)
        return 130
    except Terminated:
        print("\nstopped by SIGTERM; what was recorded is kept: start the same command again to go on", file=sys.stderr)
        return EXIT_STATUS
    return 0


@dataclass(frozen=True, kw_only=True)
class ChosenMethod:
    """A method that the flags chose. build: makes it for a context. by_name: the user named it, instead of asking for
    all or for the quick ones; then it is an error if it lacks something."""

    name: str
    build: Callable[[MethodContext], AnyMethod]
    by_name: bool = True

    def lacks(self, context: MethodContext) -> str | None:
        """Why a run could not use this method: it has no networks for the suite, or their files are missing."""
        try:
            requirements = requirements_of(self.build(context))
        except Unsupported as reason:
            return str(reason)
        reasons = [f"the environment variable {name} is not set" for name in requirements.unset]
        if absent := requirements.absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            reasons.append(f"{absent[0].name}{more} can't be found or fetched (--weights); --dry-run shows all")
        return "; ".join(reasons) or None


def requirements_of(method: AnyMethod) -> Requirements:
    """What the method says that it needs; nothing for one that says nothing."""
    requirements: Callable[[], Requirements] | None = getattr(method, "requirements", None)
    return requirements() if requirements else Requirements(note="it doesn't say what it needs")


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
        )
        runs[row] = RunDirectory(args.out / suite / name / row, manifest, benchmark.columns, fresh=args.fresh)
    shard = Shard.parse(args.shard)
    with Share(runs, sample_ids, batch_size=args.batch_size, shard=shard) as share:
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
