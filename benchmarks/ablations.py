"""The ablations on the miniature from the command line: `python -m benchmarks.ablations --axis guidance`.

guidance: the miniature's EditAR at several strengths of guidance edits the embedded PIE-Bench, the paper's figure 6.
distillation: small models, trained here with one teacher, the other or none, edit held-out scenes.
Tables and plot are rendered at the end. What is done already, trainings too, is not done again.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from baselines import METHODS
from baselines.editar import EditARMethod
from baselines.method import MethodContext
from benchmarks.cli import Methods, default_device, run_command, run_methods
from benchmarks.datasets.piebench import PieBench, read_piebench
from benchmarks.miniature.evaluate.truth_benchmark import TruthBenchmark
from benchmarks.miniature.train.distillation import (
    PERCEPTION,
    PLAN,
    TEACHERS,
    Plan,
    examples_digest,
    make_examples,
    train_student,
)
from benchmarks.miniature.world.edits import Edit
from benchmarks.miniature.world.embedded import ensure_written, held_out_edits, sample_ids, write_piebench
from benchmarks.runs.arguments import RunArguments
from benchmarks.runs.edit_benchmark import EditBenchmark
from benchmarks.runs.fid import write_fid_of_edits
from benchmarks.runs.results import write_results
from benchmarks.runs.schema import Dataset
from benchmarks.runs.store import RunDirectory
from benchmarks.suites import SUITES
from editar.io.atomic import lock

SUITE = SUITES["miniature"]
REFERENCE_ROWS = ("copy-source", "vq-reconstruction")
GUIDANCE = (1.0, 1.15, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5)  # the miniature's own is 1.15, the paper's choice 3
HELD_OUT = {"2": 48, "3": 48, "6": 48, "7": 48, "8": 48}  # edits of each type
HELD_OUT_SEED = 78  # other records than the embedded PIE-Bench's, and than those of miniature.evaluate


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """Example: python -m benchmarks.ablations --axis guidance

    Measure what guidance or distillation do to the miniature."""

    axis: Literal["guidance", "distillation"]
    """guidance: a sweep of its strength. distillation: small models, trained with either teacher and with none."""


def evaluate(args: Arguments, plan: Plan = PLAN, held_out: Mapping[str, int] = HELD_OUT) -> list[Path]:
    """The whole job; returns the rendered files, none while other shards have work left.

    plan, held_out: of the distillation; its trainings, and the number of its edits by type.
    """
    runs = guidance(args) if args.axis == "guidance" else distillation(args, plan, held_out)
    return write_results(args, SUITE.name, f"ablation-{args.axis}", runs) if runs else []


def guidance(args: Arguments) -> list[RunDirectory]:
    """The runs of the sweep on the embedded PIE-Bench."""
    device = default_device()
    dataset = read_piebench(SUITE.dataset(None), SUITE.image_side)
    networks = SUITE.backbones(None, device, "float32", None)
    benchmark = EditBenchmark(dataset, networks, "float32", args.seed, device, judge=SUITE.judge)
    context = _context(device)
    swept: Methods = {f"editar-eta-{eta:g}": partial(EditARMethod, context, eta) for eta in GUIDANCE}
    return _run(args, benchmark, dataset, _references(context) | swept, device)


def distillation(args: Arguments, plan: Plan, held_out: Mapping[str, int]) -> list[RunDirectory]:
    """The runs of the small models, which are trained first, with the FID of each."""
    from benchmarks.miniature.evaluate.backbones import load_backbones, load_perception, load_translation_backbones

    device = default_device()
    work = args.out / SUITE.name / "ablation-distillation-training"
    trained = train_all(plan, work, device)
    records = held_out_edits(dict(held_out), HELD_OUT_SEED)
    dataset, truths = write_held_out(records, work / "-".join(f"{kind}x{n}" for kind, n in held_out.items()))
    edits = dict(zip(sample_ids(records), records, strict=True))
    benchmark = TruthBenchmark(dataset, edits, load_perception(PERCEPTION)[0], load_backbones(PERCEPTION), args.seed)
    methods = _references(_context(device))
    for name, (folder, facts) in trained.items():
        methods[name] = partial(TrainedStudent, _context(device, folder), facts)
    runs = _run(args, benchmark, dataset, methods, device)
    network = load_translation_backbones(PERCEPTION, "canny").features
    for each in runs:
        write_fid_of_edits(each, truths, network)
    return runs


def train_all(plan: Plan, work: Path, device: str) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Every model of the plan by the name of its row, e.g. "dinov2-seed-0": its folder and all that determines it."""
    work.mkdir(parents=True, exist_ok=True)
    with lock(work):  # of several processes one trains
        examples = make_examples(plan, work / "examples")
        pairs = examples_digest(plan, examples)
        return {
            name: (train_student(plan, teacher, seed, examples, work / name, device), plan.facts(teacher, seed, pairs))
            for seed in plan.seeds
            for teacher in TEACHERS
            for name in [f"{teacher}-seed-{seed}"]
        }


def write_held_out(edits: Sequence[Edit], folder: Path) -> tuple[PieBench, dict[str, Path]]:
    """The edits as a PIE-Bench in `folder`, and the file of each one's true result by its sample id."""
    ensure_written(folder, lambda root: write_piebench(root, list(edits)))
    dataset = read_piebench(folder, SUITE.image_side)
    return dataset, {record.sample_id: folder / "ground_truth" / record.image_name for record in dataset.records}


class TrainedStudent(EditARMethod):
    """A model of the ablation. training: all that determines it."""

    def __init__(self, context: MethodContext, training: Mapping[str, Any]) -> None:
        super().__init__(context)
        self.training = training

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "training": self.training}


def _context(device: str, weights: Path | None = None) -> MethodContext:
    return MethodContext(suite=SUITE.name, weights=weights, device=device, image_side=SUITE.image_side)


def _references(context: MethodContext) -> Methods:
    return {name: partial(METHODS[name], context) for name in REFERENCE_ROWS}


def _run(
    args: Arguments, benchmark: EditBenchmark, dataset: PieBench, methods: Methods, device: str
) -> list[RunDirectory]:
    name = f"ablation-{args.axis}"
    sample_ids = [record.sample_id for record in dataset.records][: args.limit]
    facts = Dataset(name="PIE-Bench", digest=dataset.digest, records=len(dataset.records))
    return run_methods(args, name, SUITE.name, benchmark, facts, methods, device, sample_ids, methods)


main = partial(run_command, Arguments, evaluate, "benchmarks.ablations")

if __name__ == "__main__":
    sys.exit(main())
