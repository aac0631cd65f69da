"""Plots of the tables: bars of every column, and preservation against alignment. PNG for screens, PDF for papers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reports.plots.style import (
    COLOURS,
    GREY,
    KINDS,
    draw_interval,
    draw_point,
    drawn_mean,
    new_figure,
    plain,
    save,
    styled,
)
from reports.tables.markup import scale_and_direction
from reports.tables.model import Block, Column, Row
from reports.tables.statistics import LEVEL

if TYPE_CHECKING:
    from matplotlib.artist import Artist

MARKERS = "osD^vP*X<>"
ROW_INCHES, PANEL_INCHES, LABEL_INCHES = 0.27, 1.75, 1.7  # of the bars


@styled()
def write_bars(
    path: Path, title: str, columns: Sequence[Column], measured: Block, published: Block | None
) -> list[Path]:
    """A panel for each column that has values, a bar for each row, with its interval; returns the files written.

    path: without a suffix. published: the rows whose values are marked beside the bars, where they may be compared.
    """
    from matplotlib.patches import Patch

    shown = [c for c in range(len(columns)) if any(drawn_mean(row.estimates[c]) is not None for row in measured.rows)]
    rows = [row for row in measured.rows if any(drawn_mean(row.estimates[c]) is not None for c in shown)]
    if not rows:
        return []
    kinds = list(dict.fromkeys(row.kind for row in rows if not row.reference))
    figure = new_figure(LABEL_INCHES + PANEL_INCHES * len(shown), 1.6 + ROW_INCHES * len(rows))
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    known = {row.published_as: row for row in published.rows} if published else {}
    for panel, c in zip(panels, shown, strict=True):
        for position, row in enumerate(rows):
            if (mean := drawn_mean(row.estimates[c])) is not None:
                panel.barh(position, mean, color=_colour(row, kinds), height=0.7)
                draw_interval(panel, row.estimates[c], position)
            paper = known.get(row.published_as)
            if paper is not None and (mean := drawn_mean(paper.estimates[c])) is not None:
                panel.plot(mean, position, marker="D", color="black", fillstyle="none", markersize=5)
        name, _, network = _title(columns[c]).partition("\n")
        panel.set_title(name, pad=15 if network else 6)
        panel.text(0.5, 1.02, network, transform=panel.transAxes, ha="center", fontsize=6, color="#555555")
        panel.set_yticks(range(len(rows)), [plain(row.label) for row in rows])
        panel.tick_params(axis="y", length=0)
        panel.locator_params(axis="x", nbins=4)
    panels[0].invert_yaxis()
    colours = {plain(row.kind): _colour(row, kinds) for row in rows if row.kind}
    swatches = [Patch(color=colour, label=kind) for kind, colour in colours.items()]
    figure.legend(handles=swatches, loc="outside lower center", ncols=len(swatches), frameon=False)
    marks = ", diamonds: the published values" if known else ""
    figure.suptitle(f"{plain(title)} (means with {LEVEL:.0%} intervals{marks})", fontsize=10)
    return save(figure, path)


@styled()
def write_tradeoff(
    path: Path, title: str, columns: Sequence[Column], block: Block, pairs: Sequence[tuple[str, str]]
) -> list[Path]:
    """A panel for each pair of column keys, preservation to the right and alignment upwards; returns the files written.

    Axes are turned so that better is right and up. A row without a value in either column is not in that panel.
    """
    place = {column.key: c for c, column in enumerate(columns)}
    figure = new_figure(4.2 * len(pairs) + 2, 4.2)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    handles: dict[str, Artist] = {}
    for panel, keys in zip(panels, pairs, strict=True):
        x, y = (place[key] for key in keys)
        for number, row in enumerate(block.rows):
            colour = GREY if row.reference else COLOURS[number % len(COLOURS)]
            marker = MARKERS[number % len(MARKERS)]
            if mark := draw_point(panel, row.estimates[x], row.estimates[y], marker, colour):
                handles.setdefault(plain(row.label), mark)
        for axis, c in (("x", x), ("y", y)):
            getattr(panel, f"set_{axis}label")(_title(columns[c]).replace("\n", " "))
            if not columns[c].higher_is_better:
                getattr(panel, f"invert_{axis}axis")()
        panel.grid(color="#e5e5e5", linewidth=0.6)
        panel.set_axisbelow(True)
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False)
    figure.suptitle(f"{plain(title)}: preservation against alignment, better is right and up", fontsize=10)
    return save(figure, path)


def clear_plots(folder: Path, names: Sequence[str]) -> None:
    """Removes these plots, which an earlier rendering may have left of other numbers."""
    for name in names:
        for kind in KINDS:
            (folder / f"{name}.{kind}").unlink(missing_ok=True)


def _colour(row: Row, kinds: Sequence[str]) -> str:
    return GREY if row.reference else COLOURS[kinds.index(row.kind) % len(COLOURS)]


def _title(column: Column) -> str:
    network = f"\n({plain(column.network)})" if column.network else ""
    return f"{plain(column.title)}{scale_and_direction(column)}{network}"
