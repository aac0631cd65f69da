"""Preservation against alignment: a point with its intervals for each row."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.plots.style import COLOURS, GREY, axis_title, draw_point, drawn_mean, new_figure, plain, styled
from reports.tables.model import Block, Column, Row

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X<>"


@styled()
def draw_tradeoff(
    title: str, columns: Sequence[Column], block: Block, pairs: Sequence[tuple[str, str]], *, sweep: bool = False
) -> "Figure":
    """A panel for each pair of column keys, preservation to the right and alignment upwards.

    Axes are turned so that better is right and up. A row without a value in either column is not in that panel.
    sweep: the rows that are no references are steps of one setting, joined by a line and coloured in their order.
    """
    place = {column.key: c for c, column in enumerate(columns)}
    looks = _sweep_looks(block.rows) if sweep else _looks(block.rows)
    figure = new_figure(4.2 * len(pairs) + 2, 4.2)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    handles: dict[str, Artist] = {}
    for panel, keys in zip(panels, pairs, strict=True):
        x, y = (place[key] for key in keys)
        if sweep:
            steps = [row for row in block.rows if not row.reference]
            panel.plot(*([drawn_mean(row.estimates[c]) for row in steps] for c in (x, y)), color="lightgray", zorder=0)
        for row, look in zip(block.rows, looks, strict=True):
            if mark := draw_point(panel, row.estimates[x], row.estimates[y], *look):
                kind = f" ({plain(row.kind)})" if sweep and row.kind else ""
                handles.setdefault(f"{plain(row.label)}{kind}", mark)
        for axis, c in (("x", x), ("y", y)):
            getattr(panel, f"set_{axis}label")(axis_title(columns[c]).replace("\n", " "))
            if not columns[c].higher_is_better:
                getattr(panel, f"invert_{axis}axis")()
        panel.grid(color="#e5e5e5", linewidth=0.6)
        panel.set_axisbelow(True)
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False)
    figure.suptitle(f"{plain(title)}: preservation against alignment, better is right and up", fontsize=10)
    return figure


def _looks(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Marker and colour of each row."""
    return [
        (MARKERS[number % len(MARKERS)], GREY if row.reference else COLOURS[number % len(COLOURS)])
        for number, row in enumerate(rows)
    ]


def _sweep_looks(rows: Sequence[Row]) -> list[tuple[str, str]]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    colours = colormaps["viridis"].resampled(len(rows))
    return [("s", GREY) if row.reference else ("o", to_hex(colours(number))) for number, row in enumerate(rows)]
