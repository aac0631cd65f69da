"""What the benchmarks' command lines share: flags, the rows that they name, and the way from rows to finished runs."""

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import tyro

from baselines.external import External, Recipe, read_recipe
from baselines.method import MethodContext, Unsupported
from baselines.needs import Needs
from benchmarks.datasets.finished_images import FinishedImages
from benchmarks.runs.execute import Shard, Task, run
from benchmarks.runs.generate import Maker
from benchmarks.runs.manifest import new_manifest
from benchmarks.runs.signals import EXIT_STATUS, Terminated, terminable
from benchmarks.runs.store import Facts, RunDirectory

EXTERNAL = "external:"
DEFAULT_OUT = Path("runs")
SHOWN_FAILURES = 5  # of each method

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # becomes the name of a folder

Builders = dict[str, Callable[[], Maker]]


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


def command(kind: type[T], evaluate: Callable[[T], Any], program: str, arguments: Sequence[str] | None) -> int:
    """Runs a command; returns its exit code. What a user can mend is told in one message, with code 2."""
    try:
        with terminable():
            evaluate(tyro.cli(kind, args=arguments, prog=f"python -m {program}"))
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
class NamedRow:
    """A row of the table. build: its method for a context, which is whole once the data set was read. named: the user
    asked for it by its name, not for all or for the quick ones."""

    name: str
    build: Callable[[MethodContext], Maker]
    named: bool = True

    def lacks(self, context: MethodContext) -> str | None:
        """Why a run could not make this row: it has no networks for the suite, or they can't be had. None: it could."""
        try:
            needs = needs_of(self.build(context))
        except Unsupported as reason:
            return str(reason)
        reasons = [f"the environment variable {name} is not set" for name in needs.unset]
        if absent := needs.absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            reasons.append(f"{absent[0].name}{more} can't be found or fetched (--weights); --dry-run shows all")
        return "; ".join(reasons) or None


def needs_of(method: Maker) -> Needs:
    """What the method says that it needs; nothing for one that says nothing."""
    needs: Callable[[], Needs] | None = getattr(method, "needs", None)
    return needs() if needs else Needs(note="it doesn't say what it needs")


def named_rows(
    args: BenchmarkArguments,
    known: Mapping[str, Callable[[MethodContext], Maker]],
    quick: Collection[str] | None = None,
) -> list[NamedRow]:
    """The methods that the flags name. Raises ValueError for unknown ones and for two of a name.

    known: the methods that this benchmark can ask. quick: those of them to ask if none is named, None for all.
    """
    rows = []
    if not args.methods and args.images is None:
        rows += [(name, False) for name in known if quick is None or name in quick]
    for name in args.methods:
        rows += [(each, False) for each in known] if name == "all" else [(name, True)]
    built = []
    for name, named in rows:
        if name.startswith(EXTERNAL):
            recipe = read_recipe(Path(name.removeprefix(EXTERNAL)))
            if not args.dry_run:
                recipe.check()
            built.append(NamedRow(name=recipe.name, build=_external(recipe)))
        elif name in known:
            built.append(NamedRow(name=name, build=known[name], named=named))
        else:
            names = ", ".join(["all", *known, f"{EXTERNAL}RECIPE.toml"])
            raise ValueError(f"there is no method {name!r}; --methods takes {names}")
    labels = [row.name for row in built] + ([] if args.label is None else [args.label])
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ValueError(f"two rows are called {twice!r}; change --methods, --label or the recipe's name")
    return built


def _external(recipe: Recipe) -> Callable[[MethodContext], Maker]:
    return lambda context: External(recipe)  # a recipe says all by itself


def build_methods(
    args: BenchmarkArguments,
    rows: Sequence[NamedRow],
    context: MethodContext,
    finished: Callable[[Path], FinishedImages],
    sample_ids: Sequence[str],
) -> Builders:
    """A constructor for each row, by name; rows that were not named and lack something are left out, which is said.

    context: of all methods. finished: from the folder --images to what is in it. Raises DatasetError for absent images.
    """
    builders: Builders = {}
    for row in rows:
        if not row.named and (reason := row.lacks(context)):
            print(f"{row.name} is left out: {reason}", file=sys.stderr)
        else:
            builders[row.name] = partial(row.build, context)
    if args.images is not None and args.label is not None:
        images = finished(args.images)
        if not args.allow_partial:
            images.require(sample_ids)
        builders[args.label] = lambda: images
    return builders


class BenchmarkTask(Task, Protocol):
    """A task that also says what manifest and samples have to tell of it."""

    @property
    def protocol(self) -> str: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def facts(self) -> Facts: ...

    def scoring(self) -> dict[str, Any]:
        """How the images are scored, for the manifest."""
        ...


def run_methods(
    args: RunArguments,
    task: BenchmarkTask,
    builders: Builders,
    sample_ids: Sequence[str],
    folder: Path,
    **manifest: Any,
) -> list[RunDirectory]:
    """Makes and scores what the run directories in `folder` lack; returns them, none where another process renders.

    It does while it has work left, and where nothing was left to do and this isn't the first process.

    manifest: the arguments of `new_manifest` that neither task nor method know (suite, benchmark, dataset, device).
    """
    runs = {
        name: RunDirectory(
            folder / name,
            new_manifest(
                method=name,
                protocol=task.protocol,
                method_settings=build().settings(),
                scoring=task.scoring(),
                seed=args.seed,
                **manifest,
            ),
            task.columns,
            fresh=args.fresh,
        )
        for name, build in builders.items()
    }
    shard = Shard.parse(args.shard)
    worked = run(task, runs, builders, sample_ids, batch_size=args.batch_size, shard=shard)
    merged = [each.merge(sample_ids, task.facts, allow_missing=args.allow_partial) for each in runs.values()]
    report_failures(runs.values())
    if not all(merged):
        print("other processes have samples left; the last one, or the next start, renders the table", file=sys.stderr)
        return []
    if not worked and shard.index:  # all was done before: it is the first one's to render
        print("nothing is left to do; process 0, or a start without --shard, renders the table", file=sys.stderr)
        return []
    return list(runs.values())


def report_failures(runs: Iterable[RunDirectory]) -> None:
    for each in runs:
        failed = [sample for sample in each.samples.values() if sample.error is not None]
        for sample in failed[:SHOWN_FAILURES]:
            print(f"{each.method}: sample {sample.sample_id} failed: {sample.error}", file=sys.stderr)
        if failed:
            where = "samples.parquet has every error, and the next start tries again"
            print(f"{each.method}: {len(failed)} failed; {where}", file=sys.stderr)
