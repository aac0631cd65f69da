"""Tables and plots of the translation benchmarks, one set a task: published and measured rows of the paper's Table 2.

What is of all images together has its own source: mIoU the counts in samples.parquet, FID the fid.json that
benchmarks/runs/fid.py documents.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.runs.schema import Fid
from editar.io.digests import list_digest
from reports.plots.bars import draw_bars
from reports.runs import ReportError, Run, read_runs
from reports.tables.comparison import (
    Comparison,
    all_pairs,
    mean_of,
    measured_row,
    read_published,
    reference_notes,
    run_notes,
)
from reports.tables.mean_iou import mean_iou_difference, mean_iou_interval
from reports.tables.model import Column, Row
from reports.tables.report import write_report
from reports.tables.statistics import Estimate, paired_difference

FID = Column(key="fid", title="FID", power=0, higher_is_better=False, backbone="features")
COLUMNS = {
    "depth": (Column(key="depth_rmse", title="RMSE", power=0, higher_is_better=False, backbone="depth"), FID),
    "canny": (
        Column(key="ms_ssim", title="MS-SSIM", power=2, higher_is_better=True),
        Column(key="ssim", title="SSIM", power=2, higher_is_better=True),
        Column(key="f1", title="F1", power=2, higher_is_better=True),
        FID,
    ),
    "segmentation": (
        Column(key="mean_iou", title="mIoU", power=2, higher_is_better=True, backbone="segmentation"),
        FID,
    ),
}
KID = Column(key="kid", title="KID", power=3, higher_is_better=False, backbone="features")  # of runs with --kid
OF_ALL_IMAGES = ("fid", "kid", "mean_iou")  # no means over samples
# What the published file calls these columns. The paper's SSIM of edges is what its code takes: MS-SSIM.
PUBLISHED_NAMES = {
    "depth": {"depth_rmse": "depth_rmse", "fid": "depth_fid"},
    "canny": {"ms_ssim": "canny_ssim_e2", "fid": "canny_fid"},
    "segmentation": {"mean_iou": "seg_miou_e2", "fid": "seg_fid"},
}
PUBLISHED = "table2_translation.csv"
SOURCE = "arXiv 2501.04699, Table 2"
PROTOCOL = "translation/editar-released/v1"
RECORDS = 5000  # images of a task, over which the published numbers go
FACTS = ("source_id", "draw")
NOT_MEASURED = "not measured"
EDGES_NOTE = "MS-SSIM of the edges is what the paper's code takes and its table calls SSIM."
KID_NOTE = "KID is one number of all images and has no interval; it is against the data set's real images."
AGAIN = "start the benchmark again"


def render(
    paths: Sequence[Path],
    out: Path,
    allow_partial: bool = False,
    *,
    task: str,
    notes: Sequence[str] = (),
    plots: bool = False,
) -> list[Path]:
    """Write translation-<task>, its -deviation from the published and its -pairwise comparisons as .md, .tex, .csv and
    .html, and tables.tex that shows them; of runs that measured it -cost as .md and .csv; with `plots`, which take
    seconds, -bars as .png and .pdf. Returns the files written.

    paths: run directories and summaries. notes: go below each page's first table. Raises ReportError for runs that do
    not belong into one table, and for unfinished ones unless `allow_partial`, which averages what is done and prints
    n/N.
    """
    columns, name = COLUMNS[task], f"translation-{task}"
    scores = [column.key for column in columns if column.key not in OF_ALL_IMAGES]
    runs = read_runs(paths, scores, FACTS, allow_partial=allow_partial)
    runs.sort(key=lambda run: (run.manifest.position, run.method))
    fids = {run.method: read_fid(run) for run in runs}
    for run in runs:
        if fids[run.method].reference != fids[runs[0].method].reference:
            raise ReportError(f"the FID of {run.path} and of {runs[0].path} is against different real images; {AGAIN}")
    if any(fid.kid is not None for fid in fids.values()):
        columns = (*columns, KID)
    rivals = [run for run in runs if not run.is_reference]
    published = tuple(_published_rows(task, columns))
    file = fids[runs[0].method].reference_file
    whole = Comparison(
        title=f"{task.capitalize()} to image",
        columns=columns,
        published=published,
        measured=_beside(published, [_row(run, fids[run.method], columns) for run in runs]),
        run=runs[0],
        source=SOURCE,
        protocol=PROTOCOL,
        records=RECORDS,
        pairs=all_pairs(rivals, columns, partial(_paired, fids)),
        counted="images",
        notes=_notes(task, runs, fids),
        unlike_published=(f"FID against {file}",) if file else (),
    )
    pages = {
        name: whole.tables(),
        f"{name}-deviation": whole.deviations(),
        f"{name}-pairwise": whole.pairwise(rivals, _kind),
    }
    beside = None if whole.differences else whole.published_block
    bars = draw_bars(whole.title, whole.measured_columns, whole.measured_block, beside) if plots else None
    return write_report(runs, pages, {f"{name}-bars": bars}, out, notes)


def _notes(task: str, runs: Sequence[Run], fids: Mapping[str, Fid]) -> tuple[str, ...]:
    edges = (EDGES_NOTE,) if task == "canny" else ()
    return (*reference_notes(runs), *edges, *_fid_notes(fids), *_draw_notes(runs), *run_notes(runs, COLUMNS[task]))


def _paired(fids: Mapping[str, Fid], first: Run, second: Run, column: Column) -> Estimate:
    samples = first.samples
    if column.key in ("fid", "kid"):
        values = [getattr(fids[run.method], column.key) for run in (first, second)]
        mean = None if values[0] is None or values[1] is None else values[0] - values[1]
        return Estimate(
            mean=mean, n=len(samples), note=f"{column.title} is one number of all images: no interval and no test"
        )
    if column.key != "mean_iou":
        return paired_difference(samples[column.key], second.samples[column.key], samples["source_id"])
    both = samples.index.intersection(second.samples.index)
    one, other = (class_counts(run, both) for run in (first, second))
    classes = max(one.shape[2], other.shape[2])
    one, other = (np.pad(each, ((0, 0), (0, 0), (0, classes - each.shape[2]))) for each in (one, other))
    return mean_iou_difference(one, other, samples.loc[both, "draw"], samples.loc[both, "source_id"])


def read_fid(run: Run) -> Fid:
    """The run's FID. Raises ReportError where it is not of the run's images and networks."""
    fid, path = run.fid, run.fid_path
    if fid is None or fid.draws is None or fid.reference_images is fid.reference_file is None:
        raise ReportError(f"{path} has no FID of a translation; {AGAIN}")
    if fid.generated != list_digest(sorted(run.samples["image_sha256"])):
        raise ReportError(f"{path} is not of the images in samples.parquet; {AGAIN}")
    if fid.network != run.manifest.scoring.backbones["features"]:
        raise ReportError(f"{path} is of another network than manifest.json says; {AGAIN}")
    return fid


def _row(run: Run, fid: Fid, columns: Sequence[Column]) -> Row:
    return measured_row(
        run.method,
        [_estimate(run, fid, column.key) for column in columns],
        columns,
        kind=_kind(run),
        done=len(run.samples),
        expected=run.expected,
        reference=run.is_reference,
        published_as=run.manifest.card.published_as,
    )


def _beside(published: Sequence[Row], measured: Sequence[Row]) -> tuple[Row, ...]:
    """The measured rows: references, then those of published rows in the order of these, with one that says so for each
    that was not measured, then the others."""
    methods = {record["method"]: record["reproduced_by"] for record in read_published(PUBLISHED)}
    rows = [row for row in measured if row.reference]
    for other in published:
        missing = Row(
            label=methods[other.label],
            kind=_kinds()[other.label],
            samples=NOT_MEASURED,
            estimates=(Estimate(mean=None, n=0, note=NOT_MEASURED),) * len(other.estimates),
            done=0,
            expected=measured[0].expected,
            published_as=other.label,
        )
        rows += [row for row in measured if row.published_as == other.label] or [missing]
    return (*rows, *(row for row in measured if row not in rows))


def _kind(run: Run) -> str:
    """Of a method that the paper has, whether one network does all tasks."""
    card = run.manifest.card
    return _kinds().get(card.published_as, card.kind)


def _kinds() -> dict[str, str]:
    """By the paper's names."""
    return {each["method"]: "unified" if each["unified"] else "one task" for each in read_published(PUBLISHED)}


def _estimate(run: Run, fid: Fid, column: str) -> Estimate:
    samples = run.samples
    if column == "fid":
        return Estimate(mean=fid.fid, n=fid.images, note="; ".join([_against(fid), *_fid_reasons(fid)]))
    if column == "kid":
        return Estimate(mean=fid.kid, n=fid.images, note=KID_NOTE if fid.kid is not None else "not taken (--kid)")
    if column == "mean_iou":
        return mean_iou_interval(class_counts(run, samples.index), samples["draw"], samples["source_id"])
    return mean_of(samples, column)


def class_counts(run: Run, samples: pd.Index) -> np.ndarray:
    """Pixels of each class in both maps, in predictions, in labels: (n, 3, C), of these samples."""
    try:
        images = [json.loads(text) for text in run.samples.loc[samples, "counts"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{run.path}: samples.parquet has no readable counts ({error!r}); {AGAIN}") from error
    classes = 1 + max((int(each) for image in images for each in image), default=-1)
    counts = np.zeros((len(images), 3, classes))
    for count, image in zip(counts, images, strict=True):
        for each, pixels in image.items():
            count[:, int(each)] = pixels
    return counts


def _published_rows(task: str, columns: Sequence[Column]) -> Iterator[Row]:
    names = PUBLISHED_NAMES[task]
    for record in read_published(PUBLISHED):
        if pd.isna(record[names["fid"]]):
            continue  # the paper has no number of this method and task
        means = [record[names[column.key]] if column.key in names else None for column in columns]
        yield Row(
            label=record["method"],
            kind=f"{_kinds()[record['method']]}, {record['t2i_model']}",
            samples="",
            estimates=tuple(Estimate(mean=mean) for mean in means),
            published_as=record["method"],
        )


def _against(fid: Fid) -> str:
    real = f"{fid.reference_images} real images" if fid.reference_file is None else f"the file {fid.reference_file}"
    return f"against {real} of digest {fid.reference[:12]}, in {fid.dimension} features"


def _fid_reasons(fid: Fid) -> list[str]:
    """Why a value must not be compared with others', each reason once."""
    return list(dict.fromkeys(draw.note for draw in (fid.draws or {}).values() if draw.note))


def _fid_notes(fids: Mapping[str, Fid]) -> list[str]:
    """What FID was taken of, and why a value must not be compared with others'. fids: by method."""
    notes = [f"FID is one number of all images and has no interval; it is {_against(next(iter(fids.values())))}."]
    reasons: dict[str, list[str]] = {}
    for method, fid in fids.items():
        for reason in _fid_reasons(fid):
            reasons.setdefault(reason, []).append(method)
    if any(fid.kid is not None for fid in fids.values()):
        notes.append(KID_NOTE)
    return notes + [f"FID of {', '.join(methods)}: {reason}." for reason, methods in reasons.items()]


def _draw_notes(runs: Sequence[Run]) -> list[str]:
    draws = runs[0].attempted["draw"].nunique()
    return [f"Of {draws} images a prompt; FID and mIoU are means over the {draws}."] if draws > 1 else []
