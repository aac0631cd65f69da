"""The translation benchmarks from the command line: `python -m benchmarks.translation --task depth`.

Every method makes an image of every condition map and caption, the saved images are scored together, FID is taken of
all of them, and the table is rendered. What a run directory holds already is not done again, so starting a second time
only renders.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from baselines import TRANSLATORS
from baselines.method import MethodContext
from benchmarks.cli import build_methods, choose_methods, default_device, print_notes, run_command, run_methods
from benchmarks.datasets.finished_images import FinishedImages
from benchmarks.datasets.translation import read_translation
from benchmarks.datasets.translation_protocols import ALIGNED, PROTOCOLS
from benchmarks.runs.arguments import BenchmarkArguments
from benchmarks.runs.dry_run import show_plan
from benchmarks.runs.fid import RealImages, write_fid
from benchmarks.runs.generate import AnyMethod
from benchmarks.runs.results import write_results, write_sheet
from benchmarks.runs.schema import Dataset
from benchmarks.runs.translation_benchmark import TranslationBenchmark
from benchmarks.runs.translation_references import REFERENCES, with_real_images
from benchmarks.suites import TRANSLATION_SUITES, Suite
from metrics.protocols.fid import reference_of_statistics

REAL_IMAGES = "translation-references"  # real images and their sums, beside the benchmarks' folders
SHEET_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Arguments(BenchmarkArguments):
    """Example: python -m benchmarks.translation --task canny --methods editar controlnet

    Generate images of one kind of condition maps with several methods, score them, render the table."""

    task: Literal["depth", "canny", "segmentation"]
    """The kind of condition maps."""
    protocol: str = ALIGNED.name
    """How images and labels are prepared and scored: translation/aligned/v1, translation/editar-released/v1 or
    translation/controlnet++/v1."""
    data: Path | None = None
    """Folder with the hub's parquet files; without one the paper suite fetches them."""
    images: Path | None = None
    """Score this folder of finished images, named by sample id: 00000.png for the first record."""
    fid_reference: str | None = None
    """FID against these statistics instead of the data set's images: an .npz file in clean-fid's format, or the name of
    one that it publishes, such as cifar10_clean_train_32."""
    kid: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take KID of the data set's images as well: a column more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"--protocol is {self.protocol!r}; it must be one of {', '.join(PROTOCOLS)}")


def evaluate(args: Arguments, suite: Suite | None = None) -> list[Path]:
    """The whole job; returns the rendered files, none while other shards have work left and of a dry run.

    The sheet of images is written even where the table is refused because samples have failed.
    suite: instead of the one that `args` name.
    """
    suite = suite or TRANSLATION_SUITES[args.suite]
    device = default_device()
    protocol = PROTOCOLS[args.protocol].variant(side=suite.image_side)
    source = protocol.dataset(args.task)
    context = MethodContext(
        suite=suite.name,
        weights=args.weights,
        device=device,
        image_side=suite.image_side,
        task=args.task,
        images_at_once=args.images_at_once,
    )
    known: dict[str, Callable[[MethodContext], AnyMethod]] = {**REFERENCES, **TRANSLATORS}
    chosen = choose_methods(args, known)
    name = f"translation-{args.task}"
    if args.dry_run:
        files = suite.files(args.task, source, args.data, args.weights)
        show_plan(args, chosen, context, files, suite.name, name, suite.records, protocol.images_per_prompt)
        return []

    dataset = read_translation(source, suite.dataset(source, args.data), args.task, suite.classes)
    print_notes(dataset.notes)
    records = protocol.samples(dataset)
    sample_ids = list(records)[: args.limit and args.limit * protocol.images_per_prompt]
    context = replace(context, samples=len(records))
    images_in = partial(FinishedImages, names={each: f"{each}.png" for each in records}, side=protocol.side)
    chosen = with_real_images(chosen, lambda sample_id: protocol.image(dataset.row(records[sample_id])))
    methods = build_methods(args, chosen, context, images_in, sample_ids)

    networks = suite.backbones(args.task, args.weights, device)
    published = args.fid_reference and reference_of_statistics(args.fid_reference, networks.features, args.weights)
    benchmark = TranslationBenchmark(dataset, protocol, networks, args.seed, device)
    facts = Dataset(name=dataset.source.name, digest=dataset.digest, records=len(dataset.records))
    merged = run_methods(args, name, suite.name, benchmark, facts, methods, device, sample_ids, known)
    if not merged:
        return []
    draws = {sample_id: each["draw"] for sample_id, each in benchmark.facts.items()}
    real = RealImages(dataset, protocol, networks.features, args.out / suite.name / REAL_IMAGES)
    for run in merged:
        write_fid(run, draws, published or real.reference, networks.features, real if args.kid else None)
    firsts = [sample_id for sample_id in sample_ids if draws[sample_id] == "0"]
    title = f"{args.task.capitalize()} to image, {suite.name}, {protocol.name}"
    made = [run for run in merged if run.card.kind != "reference"] or merged
    sheet = partial(write_sheet, benchmark.view, made, firsts, SHEET_ROWS, title=title)
    return write_results(args, suite.name, name, merged, sheet)


main = partial(run_command, Arguments, evaluate, "benchmarks.translation")

if __name__ == "__main__":
    sys.exit(main())
