"""The ablations' tables and plots: the sweep of guidance, and models trained with and without distillation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.plots.ablations import plot_distillation, plot_guidance
from reports.runs import ReportError, Run, read_runs
from reports.tables import piebench
from reports.tables.comparison import (
    conditions,
    explained,
    facts,
    measured_row,
    shown_columns,
    undefined_notes,
    write_pages,
)
from reports.tables.model import Block, Column, Row, Table
from reports.tables.statistics import LEVEL, Estimate, jackknife_interval, mean_interval

PUBLISHED_ETA = 3.0
FID = Column(key="fid", title="FID", power=0, higher_is_better=False, network="miniature-perception-features")
HEADS = "miniature-perception-heads"
DISTILLATION_COLUMNS = (
    *(column for column in piebench.COLUMNS if column.key in ("psnr", "ssim")),
    Column(key="error_in_mask", title="Error in the mask", power=2, higher_is_better=False),
    Column(key="asked", title="Asked-for attribute", power=2, higher_is_better=True, network=HEADS),
    Column(key="followed", title="Instruction followed", power=2, higher_is_better=True, network=HEADS),
    *(column for column in piebench.COLUMNS if column.key in ("clip_whole", "clip_edited")),
)
TEACHERS = {"none": "no distillation", "dinov2": "DINO stand-in", "clip": "CLIP stand-in"}
PUBLISHED = Path(__file__).parents[1] / "published" / "ablation_distillation.csv"
SOURCE = "arXiv 2501.04699, ablation of the distillation loss"
PUBLISHED_COLUMNS = tuple(
    Column(key=f"{task}_fid", title=f"FID, {name} to image", power=0, higher_is_better=False)
    for task, name in (("depth", "depth"), ("canny", "canny"), ("seg", "segmentation"))
)
PUBLISHED_LABELS = {"none": "no distillation", "dinov2-0.5": "DINOv2, weight 0.5"}


NO_DIFFERENCE = "An interval that holds 0 shows no difference in either direction."


def render(
    run_dirs: Sequence[Path],
    out: Path,
    allow_partial: bool = False,
    *,
    axis: str,
    notes: Sequence[str] = (),
    plots: bool = True,
) -> list[Path]:
    """Write ablation-<axis> as .md, .tex and .csv, with `plots` as .png too; returns the files. axis: one of AXES.
    notes: go below the table. Raises ReportError as piebench does, and for runs of the distillation without an FID."""
    columns, tables, plot = AXES[axis]
    keys = [column.key for column in columns]
    measured, *others = tables(read_runs(run_dirs, keys, piebench.FACTS, allow_partial=allow_partial))
    name = f"ablation-{axis}"
    written = write_pages({name: [_with_notes(measured, notes), *others]}, out)
    return [*written, *plot(measured, out / name)] if plots else written


def guidance_tables(runs: Sequence[Run]) -> list[Table]:
    """A row for each strength, from the weakest to the strongest, below the references; differences to the weakest."""
    swept = sorted((run for run in runs if not run.is_reference), key=_eta)
    references = [run for run in runs if run.is_reference]
    rows = [_row(run.method, "reference", [run], piebench.COLUMNS, reference=True) for run in references]
    rows += [_row(f"eta {_eta(run):g}", _eta_kind(run), [run], piebench.COLUMNS) for run in swept]
    first = runs[0]
    shown = shown_columns(first.manifest, piebench.COLUMNS)
    measured = Table(
        caption=f"EditAR at several strengths of guidance (eta), measured. {conditions(first)}",
        columns=shown,
        blocks=(Block(label="Measured", rows=tuple(rows), facts=facts(first)),),
        notes=(
            "The published figure 6 is of this sweep at full size; it has no numbers to stand beside these.",
            *undefined_notes(runs, piebench.COLUMNS),
        ),
        marked=False,
    )
    differences = tuple(
        _difference_row(f"eta {_eta(run):g}", _eta_kind(run), [(run, swept[0])], piebench.COLUMNS) for run in swept[1:]
    )
    label = f"Row minus eta {_eta(swept[0]):g}"
    return [
        measured,
        Table(
            caption=f"Differences between strengths of guidance ({label.lower()}), paired by sample. "
            f"{conditions(first)}",
            columns=shown,
            blocks=(Block(label=label, rows=differences, facts=facts(first)),),
            notes=(NO_DIFFERENCE,),
            marked=False,
        ),
    ]


def distillation_tables(runs: Sequence[Run]) -> list[Table]:
    """Each teacher over all seeds and seed by seed; differences to none; the published table."""
    references = [run for run in runs if run.is_reference]
    by_teacher = {
        teacher: sorted((run for run in runs if _training(run).get("teacher") == teacher), key=_seed)
        for teacher in TEACHERS
    }
    if missing := [teacher for teacher, found in by_teacher.items() if not found]:
        raise ReportError(f"there is no run with {', '.join(missing)}: start python -m benchmarks.ablations again")
    first = by_teacher["none"][0]
    shown = (FID, *shown_columns(first.manifest, DISTILLATION_COLUMNS))
    means = [_fid_row(run.method, "reference", [run], reference=True) for run in references]
    means += [_fid_row(TEACHERS[each], f"{len(found)} seeds", found) for each, found in by_teacher.items()]
    single = [
        _fid_row(TEACHERS[each], f"seed {_seed(run)}", [run]) for each, found in by_teacher.items() for run in found
    ]
    blocks = (("Measured, all seeds", means), ("Measured, seed by seed", single))
    measured = Table(
        caption=f"EditAR trained with and without distillation, measured on held-out edits. {conditions(first)}",
        columns=shown,
        blocks=tuple(Block(label=label, rows=tuple(rows), facts=facts(first)) for label, rows in blocks),
        notes=(*_training_notes(by_teacher["dinov2"][0]), *undefined_notes(runs, DISTILLATION_COLUMNS)),
        marked=False,
    )
    return [measured, _differences(by_teacher, shown), _published()]


def _differences(by_teacher: dict[str, list[Run]], shown: Sequence[Column]) -> Table:
    base = by_teacher["none"]
    rows = []
    for teacher in ("dinov2", "clip"):
        with_teacher = by_teacher[teacher]
        if [_seed(run) for run in with_teacher] != [_seed(run) for run in base]:
            raise ReportError(f"{teacher} and none were trained with other seeds: start the ablation again")
        pairs = list(zip(with_teacher, base, strict=True))
        groups = [(f"{len(pairs)} seeds", pairs), *((f"seed {_seed(run)}", [(run, none)]) for run, none in pairs)]
        for kind, group in groups:
            rows.append(_with_fid(_difference_row(TEACHERS[teacher], kind, group, DISTILLATION_COLUMNS), group))
    label = "Row minus no distillation"
    return Table(
        caption=f"Differences to the model without distillation, paired by seed and sample. {conditions(base[0])}",
        columns=tuple(shown),
        blocks=(Block(label=label, rows=tuple(rows), facts=facts(base[0])),),
        notes=(NO_DIFFERENCE,),
        marked=False,
    )


def _published() -> Table:
    rows = tuple(
        Row(
            label=PUBLISHED_LABELS[record["distillation"]],
            kind="GPT-XL",
            samples="",
            estimates=tuple(Estimate(mean=float(record[column.key])) for column in PUBLISHED_COLUMNS),
        )
        for record in pd.read_csv(PUBLISHED).to_dict("records")
    )
    return Table(
        caption=f"Published with EditAR ({SOURCE}). Not comparable with the measured rows, which have another task, "
        "other images, other networks and a far smaller model.",
        columns=PUBLISHED_COLUMNS,
        blocks=(Block(label=f"Published ({SOURCE})", rows=rows, facts={"source": SOURCE}),),
        marked=False,
    )


def _with_notes(table: Table, notes: Sequence[str]) -> Table:
    return replace(table, notes=(*table.notes, *notes))


def _training_notes(run: Run) -> list[str]:
    """run: one with distillation."""
    training = _training(run)
    layers, steps = training["layers"], training["training"]
    return [
        f"Every model: {len(layers)} layers of the committed EditAR ({', '.join(map(str, layers))}), "
        f"{steps['steps']} steps of {steps['batch_size']} pairs, within a seed the same ones in the same order, from "
        f"the same weights; the distillation weighs {training['distillation_weight']:g}.",
        "The teachers are parts of the network that also gives FID, attributes and image-text similarity, which may "
        "flatter what was distilled from it; PSNR, SSIM and the error in the mask look at pixels alone.",
        "Intervals are over edits, as if there were no other seeds than these: what a seed changes is seen in the rows "
        f"of single ones. FID's are {LEVEL:.0%} normal intervals by the jackknife, over pairs of edit and true result.",
    ]


def _row(label: str, kind: str, runs: Sequence[Run], columns: Sequence[Column], reference: bool = False) -> Row:
    """Means over the samples of all `runs`, which are of one method or differ in the seed of its training."""
    return _estimated(label, kind, runs, columns, [_mean(runs, column.key) for column in columns], reference)


def _fid_row(label: str, kind: str, runs: Sequence[Run], reference: bool = False) -> Row:
    """As `_row`, of DISTILLATION_COLUMNS, after the FID: the mean of the runs', each taken of its own images."""
    values, left_out = zip(*map(read_fid, runs), strict=True)
    fid = jackknife_interval(float(np.mean(values)), sum(left_out) / len(runs))
    means = (_mean(runs, column.key) for column in DISTILLATION_COLUMNS)
    return _estimated(label, kind, runs, (FID, *DISTILLATION_COLUMNS), [fid, *means], reference)


def _difference_row(label: str, kind: str, pairs: Sequence[tuple[Run, Run]], columns: Sequence[Column]) -> Row:
    """Means of first minus second over the samples of all pairs."""
    sources = pd.concat([run.samples["source_id"] for run, _ in pairs])
    differences = (
        pd.concat([(run.samples[column.key] - base.samples[column.key]).loc[run.samples.index] for run, base in pairs])
        for column in columns
    )
    estimates = [mean_interval(each, sources) for each in differences]
    return _estimated(label, kind, [run for run, _ in pairs], columns, estimates)


def _with_fid(row: Row, pairs: Sequence[tuple[Run, Run]]) -> Row:
    """A difference row with that of FID before the others."""
    fids = [(read_fid(run), read_fid(base)) for run, base in pairs]
    value = float(np.mean([run[0] - base[0] for run, base in fids]))
    estimate = jackknife_interval(value, sum(run[1] - base[1] for run, base in fids) / len(pairs))
    return replace(row, estimates=(estimate, *row.estimates))


def _estimated(
    label: str,
    kind: str,
    runs: Sequence[Run],
    columns: Sequence[Column],
    estimates: Sequence[Estimate],
    reference: bool = False,
) -> Row:
    done, expected = (sum(each) for each in zip(*((len(run.samples), run.expected) for run in runs), strict=True))
    return measured_row(label, estimates, columns, kind=kind, done=done, expected=expected, reference=reference)


def _mean(runs: Sequence[Run], key: str) -> Estimate:
    samples = pd.concat([run.samples for run in runs])
    return explained(mean_interval(samples[key], samples["source_id"]), samples, key)


def read_fid(run: Run) -> tuple[float, pd.Series]:
    """The distance, and those with one pair left out, by sample id (benchmarks/runs/fid_of_edits.py)."""
    again = "start python -m benchmarks.ablations again"
    if run.fid is None or run.fid.fid is None or run.fid.left_out is None:
        raise ReportError(f"{run.fid_path} has no FID of edits: {again}")
    left_out = pd.Series(run.fid.left_out, dtype=float).sort_index()
    if list(left_out.index) != list(run.samples.index):
        raise ReportError(f"{run.fid_path} is of other samples than the run: {again}")
    return run.fid.fid, left_out


def _training(run: Run) -> dict[str, Any]:
    return run.manifest.method_settings.get("training", {})


def _seed(run: Run) -> int:
    return _training(run)["training"]["seed"]


def _eta(run: Run) -> float:
    return run.manifest.method_settings["sampling"]["guidance"]


def _eta_kind(run: Run) -> str:
    if _eta(run) <= 1:
        return "no guidance"
    return "the paper's choice" if _eta(run) == PUBLISHED_ETA else ""


# Of each axis the scores of single samples, the tables of all runs, and the plot of the first of these.
AXES: dict[
    str, tuple[Sequence[Column], Callable[[Sequence[Run]], list[Table]], Callable[[Table, Path], list[Path]]]
] = {
    "guidance": (piebench.COLUMNS, guidance_tables, plot_guidance),
    "distillation": (DISTILLATION_COLUMNS, distillation_tables, plot_distillation),
}
