"""The ablations' tables and plots: the sweep of guidance, and models trained with and without distillation."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports.plots.seeds import draw_seeds
from reports.plots.tradeoff import draw_tradeoff
from reports.runs import ReportError, Run, read_runs
from reports.tables import piebench
from reports.tables.comparison import (
    conditions,
    corrected_rows,
    facts,
    mean_of,
    measured_row,
    read_published,
    run_notes,
    tests_note,
    with_networks,
)
from reports.tables.model import Block, Column, Row, Table
from reports.tables.report import write_report
from reports.tables.statistics import LEVEL, Estimate, jackknife_interval, mean_difference

PUBLISHED_ETA = 3.0
FID = Column(key="fid", title="FID", power=0, higher_is_better=False, network="miniature-perception-features")
HEADS = "miniature-perception-heads"
DISTILLATION_COLUMNS = (
    *(column for column in piebench.COLUMNS if column.key in ("psnr", "ssim")),
    Column(key="error_in_mask", title="Error in the mask", power=2, higher_is_better=False),
    Column(key="asked", title="Asked-for attribute", power=2, higher_is_better=True, network=HEADS, share=True),
    Column(key="followed", title="Instruction followed", power=2, higher_is_better=True, network=HEADS, share=True),
    *(column for column in piebench.COLUMNS if column.key in ("clip_whole", "clip_edited")),
)
WITH_FID = (FID, *DISTILLATION_COLUMNS)
TEACHERS = {"none": "no distillation", "dinov2": "DINO stand-in", "clip": "CLIP stand-in"}
PUBLISHED = "ablation_distillation.csv"
SOURCE = "arXiv 2501.04699, ablation of the distillation loss"
PUBLISHED_COLUMNS = tuple(
    Column(key=f"{task}_fid", title=f"FID, {name} to image", power=0, higher_is_better=False)
    for task, name in (("depth", "depth"), ("canny", "canny"), ("seg", "segmentation"))
)
PUBLISHED_LABELS = {"none": "no distillation", "dinov2-0.5": "DINOv2, weight 0.5"}
NO_DIFFERENCE = "An interval that holds 0 shows no difference in either direction."
TRADEOFFS = (("structure_distance", "clip_edited"), ("psnr", "clip_whole"))  # preservation, alignment


def render(
    paths: Sequence[Path],
    out: Path,
    allow_partial: bool = False,
    *,
    axis: str,
    notes: Sequence[str] = (),
    plots: bool = True,
) -> list[Path]:
    """Write ablation-<axis> as .md, .tex, .csv and .html, with `plots` as .png and .pdf too; returns the files. axis:
    guidance or distillation. notes: go below the table. Raises ReportError as piebench does, and for runs of the
    distillation without an FID."""
    guidance, name = axis == "guidance", f"ablation-{axis}"
    scores = [column.key for column in (piebench.COLUMNS if guidance else DISTILLATION_COLUMNS)]
    runs = read_runs(paths, scores, piebench.FACTS, allow_partial=allow_partial)
    tables = guidance_tables(runs) if guidance else distillation_tables(runs)
    columns, blocks = tables[0].columns, tables[0].blocks
    if not plots:
        plot = None
    elif guidance:
        title = "EditAR, miniature, by the strength of guidance (eta)"
        plot = draw_tradeoff(title, columns, blocks[0], TRADEOFFS, sweep=True)
    else:
        plot = draw_seeds("Distillation, miniature", columns, *blocks)
    return write_report(runs, {name: tables}, {name: plot}, out, notes)


def guidance_tables(runs: Sequence[Run]) -> list[Table]:
    """A row for each strength, from the weakest to the strongest, below the references; differences to the weakest."""
    columns = piebench.columns_of(runs)
    swept = sorted((run for run in runs if not run.is_reference), key=_eta)
    rows = _reference_rows(runs, columns)
    rows += [_row(f"eta {_eta(run):g}", _eta_kind(run), [run], columns) for run in swept]
    differences = corrected_rows(
        [_difference_row(f"eta {_eta(run):g}", _eta_kind(run), [(run, swept[0])], columns) for run in swept[1:]]
    )
    label = f"Row minus eta {_eta(swept[0]):g}"
    figure_6 = "The published figure 6 is of this sweep at full size; it has no numbers to stand beside these."
    return [
        _table(
            f"EditAR at several strengths of guidance (eta), measured. {conditions(runs[0])}",
            runs[0],
            columns,
            {"Measured": rows},
            (figure_6, *run_notes(runs, columns)),
        ),
        _table(
            f"Differences between strengths of guidance ({label.lower()}), paired by sample. {conditions(runs[0])}",
            runs[0],
            columns,
            {label: differences},
            (NO_DIFFERENCE, tests_note(len(differences), "rows")),
        ),
    ]


def distillation_tables(runs: Sequence[Run]) -> list[Table]:
    """Each teacher over all seeds and seed by seed; differences to none; the published table."""
    by_teacher = {
        teacher: sorted((run for run in runs if _training(run).get("teacher") == teacher), key=_seed)
        for teacher in TEACHERS
    }
    if missing := [teacher for teacher, found in by_teacher.items() if not found]:
        raise ReportError(f"there is no run with {', '.join(missing)}: start python -m benchmarks.ablations again")
    first = by_teacher["none"][0]
    means = _reference_rows(runs, WITH_FID)
    means += [_row(TEACHERS[each], f"{len(found)} seeds", found, WITH_FID) for each, found in by_teacher.items()]
    single = [
        _row(TEACHERS[each], f"seed {_seed(run)}", [run], WITH_FID)
        for each, found in by_teacher.items()
        for run in found
    ]
    measured = _table(
        f"EditAR trained with and without distillation, measured on held-out edits. {conditions(first)}",
        first,
        WITH_FID,
        {"Measured, all seeds": means, "Measured, seed by seed": single},
        (*_training_notes(by_teacher["dinov2"][0]), *run_notes(runs, DISTILLATION_COLUMNS)),
    )
    rows = corrected_rows(_teacher_differences(by_teacher))
    differences = _table(
        f"Differences to the model without distillation, paired by seed and sample. {conditions(first)}",
        first,
        WITH_FID,
        {"Row minus no distillation": rows},
        (NO_DIFFERENCE, tests_note(len(rows), "rows")),
    )
    return [measured, differences, _published()]


def _table(
    caption: str, run: Run, columns: Sequence[Column], blocks: Mapping[str, Sequence[Row]], notes: tuple[str, ...]
) -> Table:
    """Rows by the labels of their blocks; `run` is one of the table's."""
    return Table(
        caption=caption,
        columns=with_networks(run, columns),
        blocks=tuple(Block(label=label, rows=tuple(rows), facts=facts(run)) for label, rows in blocks.items()),
        notes=notes,
        marked=False,
    )


def _teacher_differences(by_teacher: Mapping[str, Sequence[Run]]) -> list[Row]:
    base, rows = by_teacher["none"], []
    for teacher in ("dinov2", "clip"):
        with_teacher = by_teacher[teacher]
        if [_seed(run) for run in with_teacher] != [_seed(run) for run in base]:
            raise ReportError(f"{teacher} and none were trained with other seeds: start the ablation again")
        pairs = list(zip(with_teacher, base, strict=True))
        rows.append(_difference_row(TEACHERS[teacher], f"{len(pairs)} seeds", pairs, WITH_FID))
        rows += [_difference_row(TEACHERS[teacher], f"seed {_seed(pair[0])}", [pair], WITH_FID) for pair in pairs]
    return rows


def _published() -> Table:
    rows = tuple(
        Row(
            label=PUBLISHED_LABELS[record["distillation"]],
            kind="GPT-XL",
            samples="",
            estimates=tuple(Estimate(mean=float(record[column.key])) for column in PUBLISHED_COLUMNS),
        )
        for record in read_published(PUBLISHED)
    )
    return Table(
        caption=f"Published with EditAR ({SOURCE}). Not comparable with the measured rows, which have another task, "
        "other images, other networks and a far smaller model.",
        columns=PUBLISHED_COLUMNS,
        blocks=(Block(label=f"Published ({SOURCE})", rows=rows, facts={"source": SOURCE}),),
        marked=False,
    )


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
        f"of single ones. FID's are Student's {LEVEL:.0%} intervals with the jackknife's error, over pairs of edit and "
        "true result.",
    ]


def _reference_rows(runs: Sequence[Run], columns: Sequence[Column]) -> list[Row]:
    return [_row(run.method, "reference", [run], columns, reference=True) for run in runs if run.is_reference]


def _row(label: str, kind: str, runs: Sequence[Run], columns: Sequence[Column], reference: bool = False) -> Row:
    """Means over the samples of all `runs`, which are of one method or differ in the seed of its training; of FID the
    mean of the runs', each taken of its own images."""
    samples = pd.concat([run.samples for run in runs])
    estimates = [
        _mean_fid(map(read_fid, runs)) if c is FID else mean_of(samples, c.key, share=c.share) for c in columns
    ]
    return _counted(label, kind, runs, columns, estimates, reference)


def _difference_row(label: str, kind: str, pairs: Sequence[tuple[Run, Run]], columns: Sequence[Column]) -> Row:
    """Means of first minus second over the samples of all pairs."""
    sources = pd.concat([run.samples["source_id"] for run, _ in pairs])

    def estimate(column: Column) -> Estimate:
        if column is FID:
            fids = ((read_fid(run), read_fid(base)) for run, base in pairs)
            return _mean_fid((run[0] - base[0], run[1] - base[1]) for run, base in fids)
        differences = (
            (run.samples[column.key] - base.samples[column.key]).loc[run.samples.index] for run, base in pairs
        )
        return mean_difference(pd.concat(differences), sources)

    return _counted(label, kind, [run for run, _ in pairs], columns, [estimate(column) for column in columns])


def _mean_fid(fids: Iterable[tuple[float, pd.Series]]) -> Estimate:
    """Of distances, each with those with one pair left out."""
    values, left_out = zip(*fids, strict=True)
    return jackknife_interval(float(np.mean(values)), sum(left_out) / len(values))


def _counted(
    label: str,
    kind: str,
    runs: Sequence[Run],
    columns: Sequence[Column],
    estimates: Sequence[Estimate],
    reference: bool = False,
) -> Row:
    done, expected = (sum(each) for each in zip(*((len(run.samples), run.expected) for run in runs), strict=True))
    return measured_row(label, estimates, columns, kind=kind, done=done, expected=expected, reference=reference)


def read_fid(run: Run) -> tuple[float, pd.Series]:
    """The distance, and those with one pair left out, by sample id (benchmarks/runs/fid.py)."""
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
