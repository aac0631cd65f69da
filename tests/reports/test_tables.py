"""Marks within a block, and how numbers are printed."""

import pytest

from reports.tables.format import to_latex, to_markdown
from reports.tables.model import Block, Column, Row, Table, number
from reports.tables.statistics import Estimate


def marks(means: list[float | None], *, higher: bool = True, references: tuple[int, ...] = ()) -> str:
    """B for best, s for second, . for none."""
    rows = tuple(
        Row(label=f"m{i}", kind="", samples="", estimates=(Estimate(mean=mean),), reference=i in references)
        for i, mean in enumerate(means)
    )
    block = Block(label="", rows=rows)
    column = Column(key="c", title="C", power=0, higher_is_better=higher)
    found = Table(caption="", columns=(column,), blocks=(block,)).marks(block)
    return "".join({"best": "B", "second": "s", None: "."}[found.get((i, 0))] for i in range(len(means)))


@pytest.mark.parametrize(
    "means, expected",
    [
        ([1, 3, 2], ".Bs"),
        ([3, 3, 2, 1], "BBs."),
        ([3, 2, 2, 1], "Bss."),
        ([3.001, 3.004, 2], "BBs"),  # equal as printed
        ([None, 3, 2], ".Bs"),
        ([3], "."),
        ([None, 3], ".."),
        ([float("inf"), 3, 2], "Bs."),
    ],
)
def test_best_and_second_best(means, expected):
    assert marks(means) == expected


def test_direction_turns_the_marks_around():
    assert marks([1, 3, 2], higher=False) == "B.s"


def test_references_do_not_compete():
    assert marks([9, 3, 2, 1], references=(0,)) == ".Bs."


def test_marks_stay_within_their_block():
    def block(*means: float) -> Block:
        rows = (Row(label=f"m{m}", kind="", samples="", estimates=(Estimate(mean=m),)) for m in means)
        return Block(label="b", rows=tuple(rows))

    column = Column(key="c", title="C", power=0, higher_is_better=True)
    table = Table(caption="", columns=(column,), blocks=(block(1, 2), block(5, 6)))
    text = to_markdown(table)
    assert all(cell in text for cell in ("**2.00**", "<ins>1.00</ins>", "**6.00**", "<ins>5.00</ins>"))
    assert r"\underline{5.00}" in to_latex(table)


@pytest.mark.parametrize("value, text", [(1.005, "1.00"), (-0.001, "0.00"), (-1.5, "-1.50"), (219.88, "219.88")])
def test_numbers_are_printed_as_in_the_paper(value, text):
    assert number(value) == text
