"""The ablations' plots, drawn of what their tables show, as PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reports.plots.style import COLOURS, GREY, draw_interval, draw_point, drawn_mean, new_figure, plain, save, styled
from reports.tables.model import Row, Table
from reports.tables.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.artist import Artist

TRADE_OFFS = (("clip_edited", "structure_distance"), ("clip_whole", "psnr"))  # alignment, preservation
ASIDE = 0.15  # of the places along an axis: how far single seeds stand beside their mean


@styled()
def plot_guidance(table: Table, path: Path) -> list[Path]:
    """Preservation over alignment: a point with its intervals for each strength, a square for each reference.

    table: the first of ablations.guidance_tables. path: without a suffix. Returns the files written.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    rows = [row for block in table.blocks for row in block.rows]
    colours = colormaps["viridis"].resampled(len(rows))
    figure = new_figure(12, 4.8)
    handles: dict[str, Artist] = {}
    for panel, keys in zip(figure.subplots(1, len(TRADE_OFFS)), TRADE_OFFS, strict=True):
        x, y = (_place(table, key) for key in keys)
        swept = [row for row in rows if not row.reference]
        panel.plot(*(_line([row.estimates[place] for row in swept]) for place in (x, y)), color="lightgray", zorder=0)
        for number, row in enumerate(rows):
            look = ("s", GREY) if row.reference else ("o", to_hex(colours(number)))
            if mark := draw_point(panel, row.estimates[x], row.estimates[y], *look):
                handles.setdefault(_label(row), mark)
        panel.set(xlabel=_title(table, x), ylabel=_title(table, y))
        panel.grid(alpha=0.3)
    figure.legend(handles.values(), handles.keys(), loc="outside right center")
    figure.suptitle("EditAR, miniature: preservation and alignment by the strength of guidance (eta)", fontsize=10)
    return save(figure, path, ["png"])


@styled()
def plot_distillation(table: Table, path: Path) -> list[Path]:
    """A panel for each column: the means over the seeds with their intervals, and those of single seeds.

    table: the first of ablations.distillation_tables, whose blocks are all seeds together, and seed by seed. path:
    without a suffix. Returns the files written.
    """
    together, single = table.blocks
    rows = [row for row in together.rows if not row.reference]
    figure = new_figure(14, 6)
    for column, panel in enumerate(figure.subplots(2, -(-len(table.columns) // 2)).flat):
        if column >= len(table.columns):
            panel.set_axis_off()
            continue
        for place, row in enumerate(rows):
            colour = COLOURS[place % len(COLOURS)]
            draw_interval(panel, row.estimates[column], place, vertical=True, colour=colour)
            panel.plot([place], _line([row.estimates[column]]), "o", color=colour, markersize=7)
            of_seeds = _line([each.estimates[column] for each in single.rows if each.label == row.label])
            panel.plot([place + ASIDE] * len(of_seeds), of_seeds, "x", color=GREY)
        panel.set_xticks(range(len(rows)), [plain(row.label).replace(" ", "\n", 1) for row in rows])
        panel.set_xlim(-0.5, len(rows) - 0.5)
        panel.set_title(_title(table, column))
        panel.grid(axis="y", alpha=0.3)
    figure.suptitle(
        "Distillation, miniature: means over seeds with intervals over edits; crosses are seeds", fontsize=10
    )
    return save(figure, path, ["png"])


def _line(estimates: Sequence[Estimate]) -> list[float]:
    """The means; a line has a gap where there is none."""
    return [float("nan") if (mean := drawn_mean(estimate)) is None else mean for estimate in estimates]


def _label(row: Row) -> str:
    return f"{plain(row.label)}{f' ({plain(row.kind)})' if row.kind else ''}"


def _place(table: Table, key: str) -> int:
    return next(place for place, column in enumerate(table.columns) if column.key == key)


def _title(table: Table, place: int) -> str:
    column = table.columns[place]
    power = f" x 10^{column.power}" if column.power else ""
    better = "higher" if column.higher_is_better else "lower"
    network = f"\n({plain(column.network)})" if column.network else ""
    return f"{plain(column.title)}{power}, {better} is better{network}"
