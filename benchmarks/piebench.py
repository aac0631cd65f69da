"""PIE-Bench from the command line: `python -m benchmarks.piebench`.

Every method edits every record, the saved images are scored together, and the table is rendered. What a run directory
holds already is not done again, so starting a second time only renders.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from baselines import METHODS, QUICK
from baselines.method import MethodContext
from benchmarks.cli import build_methods, choose_methods, default_device, print_notes, run_command, run_methods
from benchmarks.datasets.finished_images import FinishedImages
from benchmarks.datasets.piebench import IMAGES, read_piebench
from benchmarks.runs.arguments import BenchmarkArguments
from benchmarks.runs.dry_run import show_plan
from benchmarks.runs.edit_benchmark import EditBenchmark
from benchmarks.runs.results import write_results, write_sheet
from benchmarks.runs.schema import Dataset
from benchmarks.suites import SUITES, Suite
from metrics.networks.official import CLIP_VIT_L14, OFFICIAL_CLIP

NAME = "piebench"
PANELS = 4  # the official scripts save strips of four images, of which the last is the edit
SHEET_ROWS = 5


@dataclass(frozen=True, kw_only=True)
class Arguments(BenchmarkArguments):
    """Example: python -m benchmarks.piebench --methods editar instruct-pix2pix

    Edit PIE-Bench with several methods, score the edits, render the table."""

    data: Path | None = None
    """Folder of the data set; the paper suite needs it."""
    follow_links: Path | None = None
    """Links among the data set's images may lead into this folder, not only into --data and the hub's cache."""
    images: Path | None = None
    """Score this folder of finished edits, laid out like annotation_images/."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the scoring networks; LPIPS stays in float32."""
    clip: str | None = None
    """Another CLIP for the scores: openai/ViT-L-14 (the paper suite's own), TAG/ARCHITECTURE of open_clip's models such
    as laion2b_s32b_b79k/ViT-H-14, or a folder in open_clip's format."""


def evaluate(args: Arguments, suite: Suite | None = None) -> list[Path]:
    """The whole job; returns the rendered files, none while other shards have work left and of a dry run.

    The sheet of images is written even where the table is refused because samples have failed.
    suite: instead of the one that `args` name.
    """
    suite = suite or SUITES[args.suite]
    device = default_device()
    context = MethodContext(
        suite=suite.name,
        weights=args.weights,
        device=device,
        image_side=suite.image_side,
        images_at_once=args.images_at_once,
        cache=args.out / suite.name / "cache",
    )
    own = args.data is None  # the suite's own data set
    known = {**suite.references, **METHODS} if own else METHODS
    chosen = choose_methods(args, known, QUICK | suite.references.keys())
    if args.dry_run:
        files = suite.files(args.data, args.weights)
        if args.clip not in (None, OFFICIAL_CLIP):
            files = [file for file in files if not file.name.startswith(CLIP_VIT_L14.name)]
        show_plan(args, chosen, context, files, suite.name, NAME, suite.records)
        return []

    dataset = read_piebench(suite.dataset(args.data), suite.image_side, follow_links=args.follow_links)
    print_notes(dataset.notes)
    sample_ids = [record.sample_id for record in dataset.records][: args.limit]
    context = replace(context, samples=len(dataset.records))
    names = {record.sample_id: record.image_name for record in dataset.records}
    methods = build_methods(args, chosen, context, partial(edits_in, names=names, side=suite.image_side), sample_ids)

    networks = suite.backbones(args.weights, device, args.precision, args.clip)
    benchmark = EditBenchmark(dataset, networks, args.precision, args.seed, device, judge=suite.judge if own else None)
    print_notes(benchmark.notes)
    facts = Dataset(name="PIE-Bench", digest=dataset.digest, records=len(dataset.records))
    merged = run_methods(args, NAME, suite.name, benchmark, facts, methods, device, sample_ids, known)
    if not merged:
        return []
    edits = [run for run in merged if run.card.kind != "reference"] or merged
    title = f"PIE-Bench, {suite.name}, {benchmark.protocol}"
    sheet = partial(write_sheet, benchmark.view, edits, sample_ids, SHEET_ROWS, title=title)
    return write_results(args, suite.name, NAME, merged, sheet)


def edits_in(folder: Path, names: Mapping[str, str], side: int) -> FinishedImages:
    """Edits laid out like annotation_images/; `folder` may also hold that folder."""
    inner = folder / IMAGES
    return FinishedImages(inner if inner.is_dir() else folder, names, side, PANELS)


main = partial(run_command, Arguments, evaluate, "benchmarks.piebench")

if __name__ == "__main__":
    sys.exit(main())
