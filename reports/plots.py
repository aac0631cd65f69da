"""Plots of the tables: bars of every column, and preservation against alignment. PNG for screens, PDF for papers.

The same estimates give the same bytes where matplotlib is the same: nothing in a file says when, where or by what.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.markup import one_line, scale_and_direction
from reports.statistics import LEVEL, Estimate
from reports.tables import Block, Column, Row

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vP*X<>"
GREY = "#8c8c8c"
STYLE = {"font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False}
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
ROW_INCHES, PANEL_INCHES, LABEL_INCHES = 0.27, 1.75, 1.7  # of the bars


@contextmanager
def _styled() -> Iterator[None]:
    """Matplotlib's own defaults and STYLE, whatever the user's matplotlibrc says."""
    import matplotlib

    defaults: dict[Any, Any] = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    with matplotlib.rc_context(defaults | STYLE):
        yield


@_styled()
def write_bars(
    path: Path, title: str, columns: Sequence[Column], measured: Block, published: Block | None
) -> list[Path]:
    """A panel for each column that has values, a bar for each row, with its interval; returns the files written.

    path: without a suffix. published: the rows whose values are marked beside the bars, where they may be compared.
    """
    from matplotlib.patches import Patch

    shown = [c for c in range(len(columns)) if any(_mean(row.estimates[c]) is not None for row in measured.rows)]
    rows = [row for row in measured.rows if any(_mean(row.estimates[c]) is not None for c in shown)]
    if not rows:
        return []
    kinds = list(dict.fromkeys(row.kind for row in rows if not row.reference))
    figure = _figure(LABEL_INCHES + PANEL_INCHES * len(shown), 1.6 + ROW_INCHES * len(rows))
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    known = {row.published_as: row for row in published.rows} if published else {}
    for panel, c in zip(panels, shown, strict=True):
        for position, row in enumerate(rows):
            if (mean := _mean(row.estimates[c])) is not None:
                panel.barh(position, mean, color=_colour(row, kinds), height=0.7)
                _interval(panel, row.estimates[c], position)
            paper = known.get(row.published_as)
            if paper is not None and (mean := _mean(paper.estimates[c])) is not None:
                panel.plot(mean, position, marker="D", color="black", fillstyle="none", markersize=5)
        name, _, network = _title(columns[c]).partition("\n")
        panel.set_title(name, pad=15 if network else 6)
        panel.text(0.5, 1.02, network, transform=panel.transAxes, ha="center", fontsize=6, color="#555555")
        panel.set_yticks(range(len(rows)), [_text(row.label) for row in rows])
        panel.tick_params(axis="y", length=0)
        panel.locator_params(axis="x", nbins=4)
    panels[0].invert_yaxis()
    colours = {_text(row.kind): _colour(row, kinds) for row in rows if row.kind}
    swatches = [Patch(color=colour, label=kind) for kind, colour in colours.items()]
    figure.legend(handles=swatches, loc="outside lower center", ncols=len(swatches), frameon=False)
    marks = ", diamonds: the published values" if known else ""
    figure.suptitle(f"{_text(title)} (means with {LEVEL:.0%} intervals{marks})", fontsize=10)
    return _save(figure, path)


@_styled()
def write_tradeoff(
    path: Path, title: str, columns: Sequence[Column], block: Block, pairs: Sequence[tuple[str, str]]
) -> list[Path]:
    """A panel for each pair of column keys, preservation to the right and alignment upwards; returns the files written.

    Axes are turned so that better is right and up. A row without a value in either column is not in that panel.
    """
    place = {column.key: c for c, column in enumerate(columns)}
    figure = _figure(4.2 * len(pairs) + 2, 4.2)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    handles: dict[str, Artist] = {}
    for panel, keys in zip(panels, pairs, strict=True):
        x, y = (place[key] for key in keys)
        for number, row in enumerate(block.rows):
            across, up = row.estimates[x], row.estimates[y]
            if (right := _mean(across)) is None or (height := _mean(up)) is None:
                continue
            colour = GREY if row.reference else COLOURS[number % len(COLOURS)]
            _interval(panel, across, height, colour=colour)
            _interval(panel, up, right, vertical=True, colour=colour)
            [handle] = panel.plot(right, height, MARKERS[number % len(MARKERS)], color=colour, markersize=7)
            handles.setdefault(_text(row.label), handle)
        for axis, c in (("x", x), ("y", y)):
            getattr(panel, f"set_{axis}label")(_title(columns[c]).replace("\n", " "))
            if not columns[c].higher_is_better:
                getattr(panel, f"invert_{axis}axis")()
        panel.grid(color="#e5e5e5", linewidth=0.6)
        panel.set_axisbelow(True)
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False)
    figure.suptitle(f"{_text(title)}: preservation against alignment, better is right and up", fontsize=10)
    return _save(figure, path)


def clear_plots(folder: Path, names: Sequence[str]) -> None:
    """Removes these plots, which an earlier rendering may have left of other numbers."""
    for name in names:
        for kind in METADATA:
            (folder / f"{name}.{kind}").unlink(missing_ok=True)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(f"{path.name}.{kind}") for kind in METADATA]
    for file, metadata in zip(written, METADATA.values(), strict=True):
        figure.savefig(file, dpi=150, metadata=metadata)
    return written


def _mean(estimate: Estimate) -> float | None:
    """None where there is nothing that can be drawn."""
    return estimate.mean if estimate.mean is not None and math.isfinite(estimate.mean) else None


def _interval(axes: "Axes", estimate: Estimate, at: float, *, vertical: bool = False, colour: str = "#333333") -> None:
    if estimate.low is not None and estimate.high is not None:
        along, across = (estimate.low, estimate.high), (at, at)
        axes.plot(*((across, along) if vertical else (along, across)), color=colour, linewidth=1)


def _colour(row: Row, kinds: Sequence[str]) -> str:
    return GREY if row.reference else COLOURS[kinds.index(row.kind) % len(COLOURS)]


def _title(column: Column) -> str:
    network = f"\n({_text(column.network)})" if column.network else ""
    return f"{_text(column.title)}{scale_and_direction(column)}{network}"


def _text(text: str) -> str:
    """Without matplotlib's markup for formulas."""
    return one_line(text).replace("$", r"\$")
