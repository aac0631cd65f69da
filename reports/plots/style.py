"""What all plots share: a style of their own, figures, points with their intervals, texts, files.

The same estimates give the same bytes where matplotlib is the same: nothing in a file says when, where or by what.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from editar.io.atomic import write_bytes
from reports.tables.format import one_line
from reports.tables.model import Column, scale_and_direction
from reports.tables.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito's colours, which the colour-blind can tell apart as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
GREY = "#8c8c8c"
STYLE = {"font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False}
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
PLOT_KINDS = tuple(METADATA)
# Another processor may move an edge by a pixel: at most PIXELS of them may differ by more than SHADES of 255.
PIXELS, SHADES = 0.001, 8
DIGITS = 6  # of a value that is drawn, far more than pixels show


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's own defaults and STYLE, whatever the user's matplotlibrc says."""
    import matplotlib

    defaults: dict[Any, Any] = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    with matplotlib.rc_context(defaults | STYLE):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """Of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


@styled()
def save(figure: "Figure", path: Path, kinds: Sequence[str] = PLOT_KINDS, *, keep: bool = False) -> list[Path]:
    """Returns the files written. path: without a suffix. keep: leave a PNG that looks the same as it is."""
    files = {kind: BytesIO() for kind in kinds}
    for kind, content in files.items():
        figure.savefig(content, format=kind, dpi=150, metadata=METADATA[kind])
    written = [path.with_name(f"{path.name}.{kind}") for kind in kinds]
    for file, content in zip(written, files.values(), strict=True):
        if not (keep and file.suffix == ".png" and file.is_file() and not share_of_different_pixels(file, content)):
            write_bytes(file, content.getvalue())
    return written


def share_of_different_pixels(first: Path | IO[bytes], second: Path | IO[bytes]) -> float:
    """Of two pictures, 0 to 1; 0 where another processor's arithmetic explains them, 1 for pictures of other sizes."""
    with Image.open(first) as one, Image.open(second) as other:
        if one.size != other.size:
            return 1.0
        old, new = (np.asarray(each.convert("RGB"), dtype=np.int16) for each in (one, other))
    share = float((np.abs(old - new).max(axis=2) > SHADES).mean())
    return share if share > PIXELS else 0.0


def drawn_mean(estimate: Estimate) -> float | None:
    """None where there is nothing that can be drawn."""
    return _rounded(estimate.mean) if estimate.mean is not None and math.isfinite(estimate.mean) else None


def draw_interval(
    axes: "Axes", estimate: Estimate, at: float, *, vertical: bool = False, colour: str = "#333333"
) -> None:
    if estimate.low is not None and estimate.high is not None:
        along, across = (_rounded(estimate.low), _rounded(estimate.high)), (at, at)
        axes.plot(*((across, along) if vertical else (along, across)), color=colour, linewidth=1)


def _rounded(value: float) -> float:
    """The last digits differ between processors, and would move the axes and all that is drawn."""
    return float(f"{value:.{DIGITS}g}")


def draw_point(axes: "Axes", across: Estimate, up: Estimate, marker: str, colour: str) -> "Line2D | None":
    """A mark where the means are, with both intervals; None where one of the means can't be drawn."""
    if (right := drawn_mean(across)) is None or (height := drawn_mean(up)) is None:
        return None
    draw_interval(axes, across, height, colour=colour)
    draw_interval(axes, up, right, vertical=True, colour=colour)
    [mark] = axes.plot(right, height, marker, color=colour, markersize=7)
    return mark


def plain(text: str) -> str:
    """Without matplotlib's markup for formulas."""
    return one_line(text).replace("$", r"\$")


def axis_title(column: Column) -> str:
    """The network, if any, is on a second line."""
    network = f"\n({plain(column.network)})" if column.network else ""
    return f"{plain(column.title)}{scale_and_direction(column)}{network}"
