"""What plots show: the same files where only the last digits of values differ, as they do between processors."""

from pathlib import Path

import pytest

from reports.plots.bars import draw_bars
from reports.plots.seeds import draw_seeds
from reports.plots.style import save
from reports.plots.tradeoff import draw_tradeoff
from reports.tables.model import Block, Column, Row
from reports.tables.statistics import Estimate

COLUMNS = (
    Column(key="psnr", title="PSNR", power=0, higher_is_better=True),
    Column(key="lpips", title="LPIPS", power=3, higher_is_better=False),
)
MEANS = {"one": (23.4567812, 159.92345), "other": (27.1234123, 88.1237654)}


def block(factor: float = 1.0) -> Block:
    """Of rows whose values are all multiplied by `factor`."""

    def estimate(mean: float) -> Estimate:
        return Estimate(mean=mean * factor, low=0.9 * mean * factor, high=1.1 * mean * factor, n=70)

    rows = [
        Row(label=label, kind="inversion", samples="70", estimates=tuple(map(estimate, means)))
        for label, means in MEANS.items()
    ]
    return Block(label="Measured", rows=tuple(rows))


def drawn(kind: str, rows: Block, folder: Path) -> bytes:
    """A PDF, which has the coordinates to ten digits."""
    draw = {
        "bars": lambda: draw_bars("Some", COLUMNS, rows, None),
        "tradeoff": lambda: draw_tradeoff("Some", COLUMNS, rows, [("psnr", "lpips")]),
        "sweep": lambda: draw_tradeoff("Some", COLUMNS, rows, [("psnr", "lpips")], sweep=True),
        "seeds": lambda: draw_seeds("Some", COLUMNS, rows, rows),
    }[kind]
    figure = draw()
    assert figure is not None
    folder.mkdir()
    [path] = save(figure, folder / "plot", kinds=("pdf",))
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["bars", "tradeoff", "sweep", "seeds"])
def test_last_digits_move_nothing_that_is_drawn(kind: str, tmp_path: Path) -> None:
    plot, nearly, other = (
        drawn(kind, block(factor), tmp_path / name) for name, factor in (("a", 1), ("b", 1 + 1e-10), ("c", 1.01))
    )
    assert plot == nearly and plot != other
