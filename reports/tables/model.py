"""What a table is, before it becomes Markdown, LaTeX, CSV or HTML."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from reports.tables.statistics import TOO_FEW, Estimate

Mark = Literal["best", "second", "clear"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A score, shown as value x 10^power.

    backbone: the network's part in `scoring.backbones` of the manifest. network: its name, where it is not the official
    one and the column therefore has to say so. published: whether the paper's table has the column.
    share: whether the score is 1 for yes and 0 for no.
    """

    key: str
    title: str
    power: int
    higher_is_better: bool
    backbone: str | None = None
    network: str | None = None
    published: bool = True
    share: bool = False

    @property
    def full_title(self) -> str:
        return f"{self.title} ({self.network})" if self.network else self.title


@dataclass(frozen=True, kw_only=True)
class Row:
    """Estimates are in the columns' display scale, `samples` is the count as printed. References carry no marks.

    published_as: what the paper calls the method, where its table has it: what published and measured rows share.
    """

    label: str
    kind: str
    samples: str
    estimates: tuple[Estimate, ...]
    done: int | None = None
    expected: int | None = None
    reference: bool = False
    published_as: str = ""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows that may be compared with one another; `facts` (suite, protocol ...) go into the CSV."""

    label: str
    rows: tuple[Row, ...]
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """marked: whether rows compete for the best value of a column. Differences don't; where they are tested, those that
    stay significant after the correction are marked as clear. notes: what to know besides the `legend`."""

    caption: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()
    marked: bool = True

    def marks(self, block: Block) -> dict[tuple[int, int], Mark]:
        """(row, column) -> mark within one block; a row alone is the best of nothing.

        Of measured rows, those that are not significantly worse than the best share its mark, and where that is all of
        them or nothing is tested, none has it. Of published ones, best and second best are marked as printed.
        """
        marks: dict[tuple[int, int], Mark] = {
            (r, c): "clear"
            for r, row in enumerate(block.rows)
            for c, estimate in enumerate(row.estimates)
            if estimate.p_holm is not None and estimate.p_holm < SIGNIFICANT
        }
        for c, column in enumerate(self.columns):
            printed = {
                r: round(mean, DIGITS)
                for r, row in enumerate(block.rows)
                if not row.reference and (mean := row.estimates[c].mean) is not None
            }
            if not self.marked or len(printed) < 2:
                continue
            compared = {r: block.rows[r].estimates[c] for r in printed}
            if any(estimate.n is not None for estimate in compared.values()):
                worse = [r for r, e in compared.items() if e.p_best is not None and e.p_best < SIGNIFICANT]
                marks |= {(r, c): "best" for r in printed if worse and r not in worse}
                continue
            ranking = sorted(set(printed.values()), reverse=column.higher_is_better)
            for r, value in printed.items():
                if value in ranking[:2]:
                    marks[r, c] = "best" if value == ranking[0] else "second"
        return marks

    @property
    def legend(self) -> tuple[str, ...]:
        """What marks mean and why intervals are missing, then the notes."""
        estimates = [estimate for block in self.blocks for row in block.rows for estimate in row.estimates]
        published = any("second" in self.marks(block).values() for block in self.blocks)
        return (
            *([TIED] if any(estimate.p_best is not None for estimate in estimates) else []),
            *([RANKED] if published else []),
            *([TOO_FEW] if any(estimate.too_few for estimate in estimates) else []),
            *self.notes,
        )


DIGITS = 2
SIGNIFICANT = 0.05
TIED = (
    "Measured values in bold are the best of their column or not significantly worse "
    f"(p of {SIGNIFICANT} or more in the paired test by sign flips, after Holm's correction for all pairs of methods); "
    "no bold where that is every row, and none for references."
)
RANKED = "Published values are not tested: bold is best and underlined second best of their block."
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float) -> str:
    """Two digits as in the paper, without a negative zero."""
    return f"{round(value, DIGITS) + 0.0:.{DIGITS}f}"


def scale_and_direction(column: Column) -> str:
    """What follows a column's title wherever Unicode may stand."""
    power = f" ×10{str(column.power).translate(SUPERSCRIPT)}" if column.power else ""
    return f"{power} {'↑' if column.higher_is_better else '↓'}"
