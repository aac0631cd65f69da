"""The PIE-Bench tables and plots: published and measured rows, scores by edit type, differences between methods."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks.runs.schema import CUT_PROMPTS, FOLLOWED
from editar.io.texts import first_of
from reports.plots.bars import draw_bars
from reports.plots.tradeoff import draw_tradeoff
from reports.runs import Run, read_runs
from reports.tables.comparison import (
    Comparison,
    all_pairs,
    conditions,
    facts,
    mean_of,
    measured_row,
    read_published,
    reference_notes,
    run_notes,
    tested_against_best,
    with_networks,
)
from reports.tables.model import Block, Column, Row, Table
from reports.tables.report import write_report
from reports.tables.significance import sign_flip_test
from reports.tables.statistics import Estimate, paired_difference

COLUMNS = (
    Column(key="structure_distance", title="Structure distance", power=3, higher_is_better=False, backbone="structure"),
    Column(key="psnr", title="PSNR", power=0, higher_is_better=True),
    Column(key="lpips", title="LPIPS", power=3, higher_is_better=False, backbone="perceptual"),
    Column(key="mse", title="MSE", power=4, higher_is_better=False),
    Column(key="ssim", title="SSIM", power=2, higher_is_better=True),
    Column(key="clip_whole", title="CLIP whole", power=2, higher_is_better=True, backbone="clip"),
    Column(key="clip_edited", title="CLIP edited", power=2, higher_is_better=True, backbone="clip"),
)
# Where the true results are known.
FOLLOWED_COLUMN = Column(
    key=FOLLOWED, title="Instruction followed", power=2, higher_is_better=True, published=False, share=True
)
PUBLISHED = "table3_piebench.csv"
SOURCE = "arXiv 2501.04699, Table 3"
PROTOCOL = "pie-bench/v1"
RECORDS = 700  # the whole of PIE-Bench, over which the published means go
FACTS = ("source_id", "edit_type", "edit_type_name")
TRADEOFFS = (("structure_distance", "clip_whole"), ("psnr", "clip_edited"))
BASELINE = "editar"  # differences are taken to this method where it is there


def render(
    paths: Sequence[Path],
    out: Path,
    allow_partial: bool = False,
    *,
    notes: Sequence[str] = (),
    plots: bool = False,
) -> list[Path]:
    """Write the pages below as .md, .tex, .csv and .html, and tables.tex that shows them; of runs that measured it also
    piebench-cost as .md and .csv; with `plots`, which take seconds, piebench-bars and piebench-tradeoff as .png and
    .pdf. Returns the files written.

    paths: run directories and summaries. notes: go below each page's first table. Raises ReportError for runs that do
    not belong into one table, and for unfinished ones unless `allow_partial`, which averages what is done and prints
    n/N.
    """
    runs = read_runs(paths, [column.key for column in COLUMNS], FACTS, allow_partial=allow_partial)
    runs.sort(key=lambda run: (run.manifest.position, run.method))
    columns = columns_of(runs)
    rivals = [run for run in runs if not run.is_reference]
    whole = Comparison(
        title="PIE-Bench",
        columns=columns,
        published=tuple(_published_rows(columns)),
        measured=tuple(_mean_row(run, run.samples, run.expected, columns) for run in runs),
        run=runs[0],
        source=SOURCE,
        protocol=PROTOCOL,
        records=RECORDS,
        pairs=all_pairs(rivals, columns, _paired),
        notes=_notes(runs, columns),
    )
    pages = {
        "piebench": whole.tables(),
        "piebench-table1": _table_1(whole).tables(),
        "piebench-deviation": whole.deviations(),
        "piebench-by-type": [_by_type(runs, columns)],
        "piebench-differences": [_differences(runs, columns)] if len(runs) > 1 else [],
        "piebench-pairwise": whole.pairwise(rivals, _kind),
    }
    published = None if whole.differences else whole.published_block
    drawn_columns, measured = whole.measured_columns, whole.measured_block
    drawn = {
        "piebench-bars": draw_bars(whole.title, drawn_columns, measured, published) if plots else None,
        "piebench-tradeoff": draw_tradeoff(whole.title, drawn_columns, measured, TRADEOFFS) if plots else None,
    }
    return write_report(runs, pages, drawn, out, notes)


def columns_of(runs: Sequence[Run]) -> tuple[Column, ...]:
    """The protocol's, and whether instructions were followed where one judge says so of all runs."""
    judges = {(run.manifest.scoring.options or {}).get(FOLLOWED) for run in runs}
    if len(judges) > 1 or None in judges:
        return COLUMNS
    return (*COLUMNS, replace(FOLLOWED_COLUMN, network=judges.pop()))


def _published_rows(columns: Sequence[Column]) -> Iterator[Row]:
    for record in read_published(PUBLISHED):
        names = (f"{column.key}_e{column.power}" if column.power else column.key for column in columns)
        yield Row(
            label=record["method"],
            kind=f"{record['family']}, {record['t2i_model']}",
            samples="",
            estimates=tuple(Estimate(mean=float(record[name]) if name in record else None) for name in names),
            published_as=record["method"],
        )


def _table_1(whole: Comparison) -> Comparison:
    """The paper's Table 1 has some of the rows of Table 3, with the same numbers; rows that the paper's tables don't
    have at all stay."""
    names = {"", *(record["method"] for record in read_published(PUBLISHED) if record["in_table1"])}
    return replace(
        whole,
        title="PIE-Bench, the rows of the paper's Table 1",
        published=tuple(row for row in whole.published if row.published_as in names),
        measured=tuple(row for row in whole.measured if row.published_as in names),
    )


def _mean_row(run: Run, samples: pd.DataFrame, expected: int, columns: Sequence[Column]) -> Row:
    """`samples` are the run's own or some of them, `expected` counts how many there should be."""
    return _row(
        run, [mean_of(samples, column.key, share=column.share) for column in columns], len(samples), expected, columns
    )


def _row(run: Run, estimates: Iterable[Estimate], done: int, expected: int, columns: Sequence[Column]) -> Row:
    return measured_row(
        run.method,
        estimates,
        columns,
        kind=_kind(run),
        done=done,
        expected=expected,
        reference=run.is_reference,
        published_as=run.manifest.card.published_as,
    )


def _kind(run: Run) -> str:
    return run.manifest.card.kind


def _by_type(runs: Sequence[Run], columns: Sequence[Column]) -> Table:
    """A block for each edit type; the type of a record is known as soon as one method has attempted it."""
    records = pd.concat([run.attempted[["edit_type", "edit_type_name"]] for run in runs])
    records = records[~records.index.duplicated()]
    blocks = []
    for (edit_type, name), of_type in records.groupby(["edit_type", "edit_type_name"]):
        some = [replace(run, attempted=run.attempted[run.attempted["edit_type"] == edit_type]) for run in runs]
        rows = [_mean_row(run, run.samples, len(of_type), columns) for run in some]
        pairs = all_pairs([run for run in some if not run.is_reference], columns, _tested)
        blocks.append(
            Block(
                label=name,
                rows=tested_against_best(rows, columns, pairs),
                facts={**facts(runs[0]), "edit_type": edit_type},
            )
        )
    unknown = runs[0].expected - len(records)
    return Table(
        caption=f"PIE-Bench by edit type, measured. {conditions(runs[0])}",
        columns=with_networks(runs[0], columns),
        blocks=tuple(blocks),
        notes=(
            *_notes(runs, columns),
            *([f"{unknown} records were reached by no method and are in no row here."] if unknown else []),
        ),
    )


def _differences(runs: Sequence[Run], columns: Sequence[Column]) -> Table:
    baseline = next((run for run in runs if run.method == BASELINE), runs[0])
    rows = []
    for run in runs:
        if run is not baseline:
            pairs = len(run.samples.index.intersection(baseline.samples.index))
            estimates = [_paired(run, baseline, column) for column in columns]
            rows.append(_row(run, estimates, pairs, run.expected, columns))
    label = f"Row minus {baseline.method}"
    return Table(
        caption=f"PIE-Bench, differences between methods ({label.lower()}), paired by sample. {conditions(baseline)}",
        columns=with_networks(baseline, columns),
        blocks=(Block(label=label, rows=tuple(rows), facts=facts(baseline)),),
        notes=_notes(runs, columns),
        marked=False,
    )


def _paired(first: Run, second: Run, column: Column) -> Estimate:
    return paired_difference(first.samples[column.key], second.samples[column.key], first.samples["source_id"])


def _tested(first: Run, second: Run, column: Column) -> Estimate:
    """The p-value alone, which takes half the time."""
    difference = (first.samples[column.key] - second.samples[column.key]).dropna()
    p = sign_flip_test(difference, first.samples["source_id"].loc[difference.index])
    return Estimate(mean=None, p=p)


def _notes(runs: Sequence[Run], columns: Sequence[Column]) -> tuple[str, ...]:
    judged = ("Instruction followed: of all that could have been asked for, the true result is the nearest in pixels.",)
    return (
        *reference_notes(runs),
        *_cut_notes(runs[0]),
        *(judged if len(columns) > len(COLUMNS) else ()),
        *run_notes(runs, columns),
    )


def _cut_notes(run: Run) -> tuple[str, ...]:
    """Whose target prompts are longer than CLIP reads: all runs of a table are scored with the same."""
    cut = (run.manifest.scoring.options or {}).get(CUT_PROMPTS, ())
    if not cut:
        return ()
    what = f"{len(cut)} ({first_of(cut)})"
    return (f"CLIP columns: target prompts that are longer than the network reads are cut off, {what}.",)
