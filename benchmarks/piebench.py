"""PIE-Bench from the command line: `python -m benchmarks.piebench`.

Every method edits every record, the saved images are scored together, and the table is rendered. What a run directory
holds already is not done again, so starting a second time only renders.
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from baselines import METHODS
from baselines.external import External, read_recipe
from baselines.method import Method, MethodContext
from benchmarks.datasets.piebench import PieBench, read_piebench
from benchmarks.edit_task import COLUMNS, PROTOCOL, EditTask
from benchmarks.finished import FinishedEdits
from benchmarks.manifest import new_manifest
from benchmarks.run import Shard, run
from benchmarks.run_directory import RunDirectory
from benchmarks.suites import SUITES, Suite, default_device

BENCHMARK = "piebench"
EXTERNAL = "external:"
DEFAULT_OUT = Path("runs")
SHOWN_FAILURES = 5  # of each method

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # becomes the name of a folder

Builders = dict[str, Callable[[], Method]]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Edit PIE-Bench with several methods, score the edits, render the table."""

    suite: Literal["miniature", "paper"] = "miniature"
    """miniature: embedded data and small networks, offline. paper: the official ones."""
    methods: tuple[str, ...] = ()
    """Names of methods, or all (the default without --images); external:RECIPE.toml is a method of your own."""
    data: Path | None = None
    """Folder of the data set; the paper suite needs it."""
    weights: Path | None = None
    """Folder of weights, of the methods and of the scoring networks."""
    out: Path = DEFAULT_OUT
    """Where the run directories go."""
    limit: int | None = None
    """Only the first records, in the order of their ids."""
    seed: int = 0
    """All randomness comes from it."""
    batch_size: int = 8
    """Images at a time."""
    shard: str | None = None
    """i/n: this process does every n-th record, from the i-th (0 to n-1). torchrun's processes share without it."""
    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Remove what earlier runs of these methods left."""
    allow_partial: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Render the table although samples are missing; their number is stamped on it."""
    images: Path | None = None
    """Score this folder of finished edits, laid out like annotation_images/."""
    label: str | None = None
    """The row's name for --images."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the scoring networks."""

    def __post_init__(self) -> None:
        if (self.images is None) != (self.label is None):
            raise ValueError("--images and --label go together: the folder, and the name of its row")
        if self.label is not None and not _LABEL.fullmatch(self.label):
            raise ValueError(f"--label is {self.label!r}; use letters, digits, '-', '_' and '.', at most 64")
        for flag, value in (("--limit", self.limit), ("--batch-size", self.batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"{flag} is {value}; it must be at least 1")
        shard = Shard.parse(self.shard)
        if self.fresh and shard.count > 1:
            raise ValueError(
                "--fresh with several processes: each would remove the others' work; start one with it first"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code. What a user can mend is told in one message, with code 2."""
    try:
        evaluate(tyro.cli(Arguments, args=arguments, prog="python -m benchmarks.piebench"))
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; start the same command again to go on", file=sys.stderr)
        return 130
    return 0


def evaluate(args: Arguments, suite: Suite | None = None) -> list[Path]:
    """The whole job; returns the rendered files, none while other shards have work left.

    suite: instead of the one that `args` name.
    """
    suite = suite or SUITES[args.suite]
    shard = Shard.parse(args.shard)
    device = default_device()
    dataset = read_piebench(suite.dataset(args.data), suite.image_side)
    sample_ids = [record.sample_id for record in dataset.records][: args.limit]
    context = MethodContext(suite=suite.name, weights=args.weights, device=device, image_side=suite.image_side)
    builders = build_methods(args, context, dataset, sample_ids)
    task = EditTask(dataset, suite.backbones(args.weights, device, args.precision), args.precision, args.seed, device)
    runs = {
        name: RunDirectory(
            args.out / suite.name / BENCHMARK / name,
            new_manifest(
                suite=suite.name,
                benchmark=BENCHMARK,
                method=name,
                protocol=PROTOCOL,
                dataset={"name": "PIE-Bench", "digest": dataset.digest, "records": len(dataset.records)},
                method_settings=build().settings(),
                scoring=task.scoring(),
                seed=args.seed,
                device=device,
            ),
            COLUMNS,
            fresh=args.fresh,
        )
        for name, build in builders.items()
    }
    run(task, runs, builders, sample_ids, batch_size=args.batch_size, shard=shard)
    merged = [each.merge(sample_ids, task.facts, allow_missing=args.allow_partial) for each in runs.values()]
    report_failures(runs.values())
    if not all(merged):
        print("other processes have samples left; the last one, or the next start, renders the table", file=sys.stderr)
        return []
    return render(args, suite, [each.folder for each in runs.values()])


def build_methods(args: Arguments, context: MethodContext, dataset: PieBench, sample_ids: Sequence[str]) -> Builders:
    """A constructor for each row, by name. Raises ValueError for unknown methods and DatasetError for absent edits."""
    builders: Builders = {}

    def add(name: str, build: Callable[[], Method]) -> None:
        if name in builders:
            raise ValueError(f"two rows are called {name!r}; change --methods, --label or the recipe's name")
        builders[name] = build

    chosen = args.methods or (() if args.images else ("all",))
    for name in chosen:
        if name == "all":
            for each, constructor in METHODS.items():
                add(each, partial(constructor, context))
        elif name.startswith(EXTERNAL):
            recipe = read_recipe(Path(name.removeprefix(EXTERNAL)))
            add(recipe.name, partial(External, recipe))
        elif name in METHODS:
            add(name, partial(METHODS[name], context))
        else:
            known = ", ".join(["all", *METHODS, f"{EXTERNAL}RECIPE.toml"])
            raise ValueError(f"there is no method {name!r}; --methods takes {known}")
    if args.images is not None and args.label is not None:
        finished = FinishedEdits(args.images, dataset.records)
        if not args.allow_partial:
            finished.require(sample_ids)
        add(args.label, lambda: finished)
    return builders


def report_failures(runs: Iterable[RunDirectory]) -> None:
    for each in runs:
        failed = [sample for sample in each.samples.values() if sample.error is not None]
        for sample in failed[:SHOWN_FAILURES]:
            print(f"{each.method}: sample {sample.sample_id} failed: {sample.error}", file=sys.stderr)
        if failed:
            where = "samples.parquet has every error, and the next start tries again"
            print(f"{each.method}: {len(failed)} failed; {where}", file=sys.stderr)


def render(args: Arguments, suite: Suite, folders: Sequence[Path]) -> list[Path]:
    """Writes the tables to reports/<suite>/, or below --out where that was given, and prints the comparison."""
    from reports import piebench

    parent = Path("reports") if args.out == DEFAULT_OUT else args.out / "reports"
    files = piebench.render(folders, parent / suite.name, allow_partial=args.allow_partial)
    for path in files:
        if path.name == "piebench.md":
            print(path.read_text("utf-8"))
    print("\n".join(f"written: {path}" for path in files))
    return files


if __name__ == "__main__":
    sys.exit(main())
