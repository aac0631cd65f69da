"""From runs to tables that compare them: measured rows beside published ones, deviations, and all pairs of methods."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from reports.runs import Run
from reports.tables.model import SIGNIFICANT, Block, Column, Row, Table
from reports.tables.significance import FLIPS, holm
from reports.tables.statistics import LEVEL, REPLICATES, Estimate, mean_interval


def with_networks(run: Run, columns: Sequence[Column]) -> tuple[Column, ...]:
    """The columns, with the name of the run's network where it is not the official one."""
    backbones = run.manifest.scoring.backbones
    return tuple(
        column
        if column.backbone is None or backbones[column.backbone].official
        else replace(column, network=backbones[column.backbone].name)
        for column in columns
    )


def measured_row(
    label: str,
    estimates: Iterable[Estimate],
    columns: Sequence[Column],
    *,
    kind: str,
    done: int,
    expected: int,
    reference: bool = False,
    published_as: str = "",
) -> Row:
    """`estimates` are in raw units, one for each column."""
    return Row(
        label=label,
        kind="reference" if reference else kind,
        samples=str(done) if done == expected else f"{done}/{expected}",
        estimates=tuple(e.scaled(10**column.power) for e, column in zip(estimates, columns, strict=True)),
        done=done,
        expected=expected,
        reference=reference,
        published_as=published_as,
    )


def mean_of(samples: pd.DataFrame, column: str, *, share: bool = False) -> Estimate:
    """The mean of a score with its interval, and the reasons for its undefined values, counted in samples. share: the
    scores are 1 for yes and 0 for no."""
    undefined = (json.loads(text) for text in samples["undefined"].dropna())
    reasons = Counter(each[column] for each in undefined if column in each)
    note = "; ".join(f"{count} undefined: {reason}" for reason, count in reasons.items())
    return replace(mean_interval(samples[column], samples["source_id"], share=share), note=note)


def facts(run: Run) -> dict[str, object]:
    """What all runs of a table share, for the CSV."""
    manifest = run.manifest
    return {
        **{"source": "measured", "suite": manifest.suite, "protocol": manifest.protocol},
        **{"precision": manifest.scoring.precision, "seed": manifest.seed},
        "dataset_digest": manifest.dataset.digest,
    }


def conditions(run: Run, counted: str = "records") -> str:
    """A sentence for the caption. counted: what the run's samples are."""
    known = facts(run)
    return (
        f"Protocol {known['protocol']}, suite {known['suite']}, scoring networks in {known['precision']}, "
        f"seed {known['seed']}, {run.expected} {counted} of data set {str(known['dataset_digest'])[:12]}. "
        f"Means with {LEVEL:.0%} bootstrap-t intervals, clustered by source image, {REPLICATES} replicates."
    )


def reference_notes(runs: Sequence[Run]) -> list[str]:
    return [f"{run.method} is a reference: {run.manifest.card.note}." for run in runs if run.is_reference]


def run_notes(runs: Sequence[Run], columns: Sequence[Column]) -> list[str]:
    """What readers of a table have to know of its measured rows, whatever the benchmark."""
    mixed = [
        f"{run.method} mixes samples of {len(run.manifest.sources)} versions of the code."
        for run in runs
        if run.is_mixed
    ]
    return [*mixed, *undefined_notes(runs, columns)]


def undefined_notes(runs: Sequence[Run], columns: Sequence[Column]) -> list[str]:
    """Why values are missing, counted in samples; a cell that averages fewer values prints its own n."""
    reasons: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        for sample_id, text in run.samples["undefined"].dropna().items():
            for column, reason in json.loads(text).items():
                reasons.setdefault((reason, column), set()).add(str(sample_id))
    titles = {column.key: column.title for column in columns}
    notes: dict[tuple[str, int], list[str]] = {}
    for (reason, column), samples in reasons.items():
        notes.setdefault((reason, len(samples)), []).append(titles.get(column, column))
    everything = runs[0].expected
    return [
        f"{', '.join(names)} undefined for {'all ' if count == everything else ''}{count} "
        f"sample{'s' if count != 1 else ''}: {reason}."
        for (reason, count), names in notes.items()
    ]


EXACT = "Published values are taken as exact: the paper gives no intervals. The intervals are the measured."
PUBLISHED = Path(__file__).parents[1] / "published"


@cache
def read_published(name: str) -> list[dict[str, Any]]:
    """The lines of a file of published numbers."""
    return pd.read_csv(PUBLISHED / name).to_dict("records")


# Of two methods, the difference of the first from the second in each column.
Pairs = Mapping[tuple[str, str], Sequence[Estimate]]


def all_pairs(
    runs: Sequence[Run], columns: Sequence[Column], difference: Callable[[Run, Run, Column], Estimate]
) -> Pairs:
    """By the names of the methods, in the order of the runs; p-values of a column are corrected for all pairs.

    difference: of the first run minus the second, in raw units, with its p-value where there is one.
    """
    if len(runs) < 2:
        return {}
    pairs = list(combinations(runs, 2))
    tested = [corrected([difference(*pair, column) for pair in pairs]) for column in columns]
    names = [(first.method, second.method) for first, second in pairs]
    return dict(zip(names, zip(*tested, strict=True), strict=True))


def corrected(estimates: Sequence[Estimate]) -> list[Estimate]:
    """With `p_holm` for tests that stand beside each other."""
    p_values = holm([estimate.p for estimate in estimates])
    return [replace(estimate, p_holm=p) for estimate, p in zip(estimates, p_values, strict=True)]


def corrected_rows(rows: Sequence[Row]) -> list[Row]:
    """With `p_holm` for the tests of each column."""
    columns = zip(*(row.estimates for row in rows), strict=True)
    estimates = zip(*map(corrected, columns), strict=True)
    return [replace(row, estimates=each) for row, each in zip(rows, estimates, strict=True)]


def tested_against_best(rows: Sequence[Row], columns: Sequence[Column], pairs: Pairs) -> tuple[Row, ...]:
    """The rows, those that compete with `p_best` in the columns that have tests."""
    estimates = [list(row.estimates) for row in rows]
    for c, column in enumerate(columns):
        means = {
            r: e.mean for r, row in enumerate(rows) if not row.reference and (e := row.estimates[c]).mean is not None
        }
        if not means:
            continue
        best = (max if column.higher_is_better else min)(means, key=lambda r: means[r])
        for r in means:
            names = (rows[best].label, rows[r].label)
            pair = pairs.get(names) or pairs.get(names[::-1])
            estimates[r][c] = replace(estimates[r][c], p_best=pair[c].p_holm if pair else None)
        if any(estimates[r][c].p_best is not None for r in means):
            estimates[best][c] = replace(estimates[best][c], p_best=1.0)
    return tuple(replace(row, estimates=tuple(each)) for row, each in zip(rows, estimates, strict=True))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows of one benchmark. columns: as published; the measured ones say which networks they are of.

    run: one of the measured, whose conditions are those of all. protocol, records: what the published numbers are of.
    source: of these. pairs: of the measured methods that compete. counted: what the run's samples are. notes: go below
    the measured rows. unlike_published: more of what makes the measured rows unlike the published ones.
    """

    title: str
    columns: tuple[Column, ...]
    published: tuple[Row, ...]
    measured: tuple[Row, ...]
    run: Run
    source: str
    protocol: str
    records: int
    pairs: Pairs
    counted: str = "records"
    notes: tuple[str, ...] = ()
    unlike_published: tuple[str, ...] = ()

    @cached_property
    def measured_columns(self) -> tuple[Column, ...]:
        return with_networks(self.run, self.columns)

    @cached_property
    def conditions(self) -> str:
        return conditions(self.run, self.counted)

    @property
    def published_block(self) -> Block:
        return Block(label=f"Published ({self.source})", rows=self.published, facts={"source": self.source})

    @property
    def measured_block(self) -> Block:
        rows = tested_against_best(self.measured, self.columns, self.pairs)
        return Block(label="Measured", rows=rows, facts=facts(self.run))

    @cached_property
    def differences(self) -> list[str]:
        """What keeps the published numbers out of the measured ones' columns; empty where they may be compared."""
        manifest = self.run.manifest
        reasons = {
            "other images": manifest.suite != "paper",
            "other scoring networks": self.measured_columns != self.columns,
            f"the protocol {manifest.protocol}": manifest.protocol != self.protocol,
            f"{self.run.expected} records instead of {self.records}": self.run.expected != self.records,
        }
        return [*(reason for reason, holds in reasons.items() if holds), *self.unlike_published]

    def tables(self) -> list[Table]:
        """One table where the published columns mean the same as the measured ones, else two that say so."""
        if not self.differences:
            caption = f"{self.title}, published and measured. Measured rows: {self.conditions}"
            return [self._measured_table(caption, self.published_block, self.measured_block)]
        why = f"Not comparable with the measured rows, which have {', '.join(self.differences)}."
        caption = (
            f"{self.title}, published with EditAR ({self.source}). {why} "
            "So there is no deviation from the published values."
        )
        return [
            self._measured_table(f"{self.title}, measured. {self.conditions}", self.measured_block),
            self._published_table(caption),
        ]

    def _published_table(self, caption: str) -> Table:
        kept = [c for c, column in enumerate(self.columns) if column.published]
        rows = tuple(replace(row, estimates=tuple(row.estimates[c] for c in kept)) for row in self.published)
        block = replace(self.published_block, rows=rows)
        return Table(caption=caption, columns=tuple(self.columns[c] for c in kept), blocks=(block,))

    def _measured_table(self, caption: str, *blocks: Block) -> Table:
        return Table(caption=caption, columns=self.measured_columns, blocks=blocks, notes=self.notes)

    def deviations(self) -> list[Table]:
        """Measured minus published, of the rows that the paper has; none where the columns mean different things.

        A published number comes without an interval, so the interval is that of the measured mean, moved by it.
        """
        paper = {row.published_as: row for row in self.published}
        rows = tuple(
            replace(row, estimates=tuple(map(_deviation, row.estimates, paper[row.published_as].estimates)))
            for row in self.measured
            if row.published_as in paper and row.done
        )
        if self.differences or not rows:
            return []
        return [
            Table(
                caption=f"{self.title}, deviation from the published values ({self.source}). {self.conditions}",
                columns=self.measured_columns,
                blocks=(Block(label="Measured minus published", rows=rows, facts=facts(self.run)),),
                notes=(EXACT,),
                marked=False,
            )
        ]

    def pairwise(self, runs: Sequence[Run], kind: Callable[[Run], str]) -> list[Table]:
        """A block for each method but the last, and a row for each method after it; no table for fewer than two."""
        if len(runs) < 2:
            return []
        rows: dict[str, list[Row]] = {}
        for first, second in combinations(runs, 2):
            done = len(first.samples.index.intersection(second.samples.index))
            estimates = self.pairs[first.method, second.method]
            row = measured_row(
                second.method, estimates, self.columns, kind=kind(second), done=done, expected=first.expected
            )
            rows.setdefault(f"{first.method} minus the row", []).append(row)
        return [
            Table(
                caption=f"{self.title}, all pairs of methods, paired by sample. {conditions(runs[0], self.counted)}",
                columns=self.measured_columns,
                blocks=tuple(Block(label=each, rows=tuple(rows[each]), facts=facts(runs[0])) for each in rows),
                notes=(tests_note(len(self.pairs), "pairs"),),
                marked=False,
            )
        ]


def _deviation(measured: Estimate, published: Estimate) -> Estimate:
    if measured.mean is None or published.mean is None:
        return replace(measured, mean=None, low=None, high=None, note=measured.note or "not published")
    by = published.mean
    mean, low, high = (None if x is None else x - by for x in (measured.mean, measured.low, measured.high))
    note = "; ".join(filter(None, [f"published {by:g}", measured.note]))
    return replace(measured, mean=mean, low=low, high=high, note=note)


def tests_note(tests: int, what: str) -> str:
    """tests: of a column. what: these are of, in the plural."""
    of = f"the {tests} {what} of a column" if tests > 1 else "one test a column, which needs no correction"
    return (
        f"p is two-sided, of a test by sign flips of source images (all flips where few differ, else {FLIPS} random "
        f"ones), after Holm's correction for {of}; bold where it is below {SIGNIFICANT}. Columns are not corrected for "
        "one another."
    )
