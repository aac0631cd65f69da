"""What a table is, before it becomes Markdown, LaTeX, CSV or HTML."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from reports.tables.statistics import Estimate

Mark = Literal["best", "second", "clear"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A score, shown as value x 10^power.

    backbone: the network's part in `scoring.backbones` of the manifest. network: its name, where it is not the official
    one and the column therefore has to say so.
    """

    key: str
    title: str
    power: int
    higher_is_better: bool
    backbone: str | None = None
    network: str | None = None

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
    stay significant after the correction are marked as clear."""

    caption: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()
    marked: bool = True

    def marks(self, block: Block) -> dict[tuple[int, int], Mark]:
        """(row, column) -> mark within one block. Ties as printed share a mark; a row alone is the best of nothing."""
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
            ranking = sorted(set(printed.values()), reverse=column.higher_is_better)
            for r, value in printed.items():
                if value in ranking[:2]:
                    marks[r, c] = "best" if value == ranking[0] else "second"
        return marks


DIGITS = 2
SIGNIFICANT = 0.05
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float) -> str:
    """Two digits as in the paper, without a negative zero."""
    return f"{round(value, DIGITS) + 0.0:.{DIGITS}f}"


def scale_and_direction(column: Column) -> str:
    """What follows a column's title wherever Unicode may stand."""
    power = f" ×10{str(column.power).translate(SUPERSCRIPT)}" if column.power else ""
    return f"{power} {'↑' if column.higher_is_better else '↓'}"
