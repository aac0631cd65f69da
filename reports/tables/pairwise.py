"""All pairs of methods: the paired difference of every column, with p-values corrected for the number of pairs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

from reports.runs import Run
from reports.tables.comparison import conditions, facts, measured_row
from reports.tables.model import SIGNIFICANT, Block, Column, Row, Table
from reports.tables.statistics import TEST_REPLICATES, Estimate, holm

Difference = Callable[[Run, Run, Column], Estimate]


def pairwise(
    title: str,
    runs: Sequence[Run],
    columns: Sequence[Column],
    shown: Sequence[Column],
    kind: Callable[[Run], str],
    difference: Difference,
    counted: str = "records",
) -> list[Table]:
    """One table with a block for each method but the last, and a row for each method after it; none for fewer than two.

    columns: of the scores, shown as in the tables of `title`. difference: of the first run minus the second, in raw
    units, with its p-value where there is one; what is counted is `counted`.
    """
    if len(runs) < 2:
        return []
    pairs = list(combinations(range(len(runs)), 2))
    estimates = [[difference(runs[a], runs[b], column) for a, b in pairs] for column in columns]
    corrected = [
        [replace(e, p_holm=p) for e, p in zip(each, holm([e.p for e in each]), strict=True)] for each in estimates
    ]
    rows = {pair: _row(runs, pair, [each[i] for each in corrected], columns, kind) for i, pair in enumerate(pairs)}
    blocks = tuple(
        Block(
            label=f"{first.method} minus the row",
            rows=tuple(rows[a, b] for b in range(a + 1, len(runs))),
            facts=facts(first),
        )
        for a, first in enumerate(runs[:-1])
    )
    return [
        Table(
            caption=f"{title}, all pairs of methods, paired by sample. {conditions(runs[0], counted)}",
            columns=tuple(shown),
            blocks=blocks,
            notes=(_note(len(pairs)),),
            marked=False,
        )
    ]


def _row(
    runs: Sequence[Run],
    pair: tuple[int, int],
    estimates: Sequence[Estimate],
    columns: Sequence[Column],
    kind: Callable[[Run], str],
) -> Row:
    first, second = (runs[i] for i in pair)
    done = len(first.samples.index.intersection(second.samples.index))
    return measured_row(second.method, estimates, columns, kind=kind(second), done=done, expected=first.expected)


def _note(pairs: int) -> str:
    tests = f"the {pairs} pairs of a column" if pairs > 1 else "one pair a column, which needs no correction"
    return (
        f"p is two-sided, of a paired bootstrap clustered by source image with {TEST_REPLICATES} replicates, after "
        f"Holm's correction for {tests}; bold where it is below {SIGNIFICANT}. Columns are not corrected for one "
        "another."
    )
