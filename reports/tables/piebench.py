"""The PIE-Bench tables and plots: published and measured rows, scores by edit type, differences between methods."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from reports.plots.scores import clear_plots, write_bars, write_tradeoff
from reports.runs import Run, read_runs
from reports.tables import comparison
from reports.tables.comparison import MARKS, conditions, facts, shown_columns, undefined_notes, write_pages
from reports.tables.cost import write_cost
from reports.tables.model import Block, Column, Row, Table
from reports.tables.pairwise import pairwise
from reports.tables.statistics import Estimate, mean_interval, paired_difference

COLUMNS = (
    Column(key="structure_distance", title="Structure distance", power=3, higher_is_better=False, backbone="structure"),
    Column(key="psnr", title="PSNR", power=0, higher_is_better=True),
    Column(key="lpips", title="LPIPS", power=3, higher_is_better=False, backbone="perceptual"),
    Column(key="mse", title="MSE", power=4, higher_is_better=False),
    Column(key="ssim", title="SSIM", power=2, higher_is_better=True),
    Column(key="clip_whole", title="CLIP whole", power=2, higher_is_better=True, backbone="clip"),
    Column(key="clip_edited", title="CLIP edited", power=2, higher_is_better=True, backbone="clip"),
)
PUBLISHED = Path(__file__).parents[1] / "published" / "table3_piebench.csv"
SOURCE = "arXiv 2501.04699, Table 3"
PROTOCOL = "pie-bench/v1"
RECORDS = 700  # the whole of PIE-Bench, over which the published means go
FACTS = ("source_id", "edit_type", "edit_type_name")
FIGURES = ("piebench-bars", "piebench-tradeoff")
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
    runs.sort(key=lambda run: run.manifest.position)
    rivals = [run for run in runs if not run.is_reference]
    measured = tuple(_row(run, run.samples, run.expected) for run in runs)
    pages = {
        "piebench": _comparison(runs, measured),
        "piebench-table1": _comparison(runs, measured, only=_in_table_1()),
        "piebench-deviation": _deviations(runs, measured),
        "piebench-by-type": [_by_type(runs)],
        "piebench-differences": [_differences(runs)] if len(runs) > 1 else [],
        "piebench-pairwise": pairwise(
            "PIE-Bench", rivals, COLUMNS, shown_columns(runs[0].manifest, COLUMNS), _kind, _pair
        ),
    }
    figures = _figures(pages["piebench"][0], out) if plots else []
    clear_plots(out, [name for name in FIGURES if name not in {path.stem for path in figures}])
    shown = {"piebench": list(dict.fromkeys(path.stem for path in figures))}
    return [*write_pages(pages, out, notes=notes, figures=shown), *write_cost(runs, out, "piebench"), *figures]


def _comparison(runs: Sequence[Run], measured: Sequence[Row], only: Collection[str] | None = None) -> list[Table]:
    """only: the paper's names of the rows to show, with the rows that the paper's tables don't have at all."""
    first = runs[0]
    shown = shown_columns(first.manifest, COLUMNS)
    if only is not None:
        measured = [row for row in measured if not row.published_as or row.published_as in only]
    published = [row for row in _published_rows() if only is None or row.published_as in only]
    return comparison.compared(
        "PIE-Bench" if only is None else "PIE-Bench, the rows of the paper's Table 1",
        Block(label=f"Published ({SOURCE})", rows=tuple(published), facts={"source": SOURCE}),
        Block(label="Measured", rows=tuple(measured), facts=facts(first)),
        columns=COLUMNS,
        shown=shown,
        conditions=conditions(first),
        differences=_not_as_published(runs),
        notes=(MARKS, *_row_notes(runs), *undefined_notes(runs, COLUMNS)),
    )


def _deviations(runs: Sequence[Run], measured: Sequence[Row]) -> list[Table]:
    return comparison.deviations(
        "PIE-Bench",
        Block(label="", rows=tuple(_published_rows()), facts={"source": SOURCE}),
        Block(label="", rows=tuple(measured), facts=facts(runs[0])),
        shown=shown_columns(runs[0].manifest, COLUMNS),
        conditions=conditions(runs[0]),
        differences=_not_as_published(runs),
    )


def _not_as_published(runs: Sequence[Run]) -> list[str]:
    manifest = runs[0].manifest
    return comparison.not_as_published(manifest, COLUMNS, shown_columns(manifest, COLUMNS), PROTOCOL, RECORDS)


def _figures(table: Table, out: Path) -> list[Path]:
    """table: the comparison, whose measured block is its last."""
    published = table.blocks[0] if len(table.blocks) > 1 else None
    bars, tradeoff = (out / name for name in FIGURES)
    return write_bars(bars, "PIE-Bench", table.columns, table.blocks[-1], published) + write_tradeoff(
        tradeoff, "PIE-Bench", table.columns, table.blocks[-1], TRADEOFFS
    )


def _pair(first: Run, second: Run, column: Column) -> Estimate:
    sources = first.samples["source_id"]
    return paired_difference(first.samples[column.key], second.samples[column.key], sources, test=True)


def _row(run: Run, samples: pd.DataFrame, expected: int) -> Row:
    """`samples` are the run's own or some of them, `expected` counts how many there should be."""
    estimates = (
        comparison.explained(mean_interval(samples[column.key], samples["source_id"]), samples, column.key)
        for column in COLUMNS
    )
    return _measured_row(run, estimates, len(samples), expected)


def _measured_row(run: Run, estimates: Iterable[Estimate], done: int, expected: int) -> Row:
    return comparison.measured_row(
        run.method,
        estimates,
        COLUMNS,
        kind=run.manifest.card.kind,
        done=done,
        expected=expected,
        reference=run.is_reference,
        published_as=run.manifest.card.published_as,
    )


def _kind(run: Run) -> str:
    return run.manifest.card.kind


@cache
def _published() -> list[dict[str, Any]]:
    return pd.read_csv(PUBLISHED).to_dict("records")


def _in_table_1() -> frozenset[str]:
    """Table 1 of the paper has some of the rows of Table 3, with the same numbers."""
    return frozenset(record["method"] for record in _published() if record["in_table1"])


def _published_rows() -> Iterator[Row]:
    for record in _published():
        names = (f"{column.key}_e{column.power}" if column.power else column.key for column in COLUMNS)
        yield Row(
            label=record["method"],
            kind=f"{record['family']}, {record['t2i_model']}",
            samples="",
            estimates=tuple(Estimate(mean=float(record[name])) for name in names),
            published_as=record["method"],
        )


def _by_type(runs: Sequence[Run]) -> Table:
    """A block for each edit type; the type of a record is known as soon as one method has attempted it."""
    records = pd.concat([run.attempted[["edit_type", "edit_type_name"]] for run in runs])
    records = records[~records.index.duplicated()]
    blocks = []
    for (edit_type, name), group in records.groupby(["edit_type", "edit_type_name"]):
        rows = tuple(_row(run, run.samples[run.samples["edit_type"] == edit_type], len(group)) for run in runs)
        blocks.append(Block(label=name, rows=rows, facts={**facts(runs[0]), "edit_type": edit_type}))
    notes = [MARKS, *_row_notes(runs), *undefined_notes(runs, COLUMNS)]
    if unknown := runs[0].expected - len(records):
        notes.append(f"{unknown} records were reached by no method and are in no row here.")
    return Table(
        caption=f"PIE-Bench by edit type, measured. {conditions(runs[0])}",
        columns=shown_columns(runs[0].manifest, COLUMNS),
        blocks=tuple(blocks),
        notes=tuple(notes),
    )


def _differences(runs: Sequence[Run]) -> Table:
    baseline = next((run for run in runs if run.method == BASELINE), runs[0])
    rows = []
    for run in runs:
        if run is not baseline:
            sources = run.samples["source_id"]
            pairs = len(sources.index.intersection(baseline.samples.index))
            estimates = (paired_difference(run.samples[c.key], baseline.samples[c.key], sources) for c in COLUMNS)
            rows.append(_measured_row(run, estimates, pairs, run.expected))
    label = f"Row minus {baseline.method}"
    return Table(
        caption=f"PIE-Bench, differences between methods ({label.lower()}), paired by sample. {conditions(baseline)}",
        columns=shown_columns(baseline.manifest, COLUMNS),
        blocks=(Block(label=label, rows=tuple(rows), facts=facts(baseline)),),
        notes=(*_row_notes(runs), *undefined_notes(runs, COLUMNS)),
        marked=False,
    )


def _row_notes(runs: Sequence[Run]) -> list[str]:
    return [f"{run.method} is a reference: {run.manifest.card.note}." for run in runs if run.is_reference]
