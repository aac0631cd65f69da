"""Marks within a block, what the legend says of them, and how numbers are printed."""

from dataclasses import replace

import pytest

from reports.tables.format import to_latex, to_markdown
from reports.tables.model import Block, Column, Row, Table, number
from reports.tables.statistics import FEWEST, Estimate


def marks(means: list[float | None], *, higher: bool = True, references: tuple[int, ...] = ()) -> str:
    """Of published values: B for best, s for second, . for none."""
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


def measured(p_best: dict[float, float | None], *, reference: float | None = None) -> Table:
    """A row for each mean, with its p of the difference from the best."""
    rows = tuple(
        Row(
            label=f"m{mean}",
            kind="",
            samples="",
            estimates=(Estimate(mean=mean, n=9, p_best=p, too_few=True),),
            reference=mean == reference,
        )
        for mean, p in p_best.items()
    )
    column = Column(key="c", title="C", power=0, higher_is_better=True)
    return Table(caption="", columns=(column,), blocks=(Block(label="b", rows=rows),))


@pytest.mark.parametrize(
    "p_best, bold",
    [
        ({3: 1.0, 2: 0.05, 1: 0.049}, "BB."),
        ({3: 1.0, 2: 0.01, 1: 0.01}, "B.."),
        ({3: 1.0, 2: 0.2, 1: 0.06}, "..."),  # all of them would be bold
        ({3: None, 2: None}, ".."),  # such as FID, which has no test
        ({9: None, 3: 1.0, 2: 0.01}, ".B."),  # a reference
    ],
)
def test_measured_values_are_bold_that_are_not_significantly_worse_than_the_best(p_best, bold) -> None:
    table = measured(p_best, reference=9)
    found = table.marks(table.blocks[0])
    assert "".join("B" if found.get((r, 0)) == "best" else "." for r in range(len(p_best))) == bold
    assert "second" not in found.values()


def test_the_legend_says_what_is_bold_and_why_intervals_are_missing() -> None:
    text = to_markdown(measured({3: 1.0, 2: 0.01}))
    assert "not significantly worse (p of 0.05 or more in the paired test by sign flips" in text
    assert f"No interval for fewer than {FEWEST} source images" in text and "Published values" not in text
    row = Row(label="a", kind="", samples="", estimates=(Estimate(mean=1.0),))
    rows = (row, replace(row, estimates=(Estimate(mean=2.0),)))
    published = replace(measured({}), blocks=(Block(label="b", rows=rows),))
    assert "Published values are not tested: bold is best" in to_latex(published)
    assert "significantly" not in to_latex(published) and "No interval" not in to_latex(published)


@pytest.mark.parametrize("value, text", [(1.005, "1.00"), (-0.001, "0.00"), (-1.5, "-1.50"), (219.88, "219.88")])
def test_numbers_are_printed_as_in_the_paper(value, text):
    assert number(value) == text
