"""Models that were trained from several seeds: means over the seeds with their intervals, beside those of each seed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.plots.style import COLOURS, GREY, axis_title, draw_interval, drawn_mean, new_figure, plain, styled
from reports.tables.model import Block, Column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ASIDE = 0.15  # of the places along an axis: how far single seeds stand beside their mean


@styled()
def draw_seeds(title: str, columns: Sequence[Column], together: Block, single: Block) -> "Figure":
    """A panel for each column. together: rows over all seeds; single: rows of single seeds, with the same labels."""
    rows = [row for row in together.rows if not row.reference]
    figure = new_figure(14, 6)
    for c, panel in enumerate(figure.subplots(2, -(-len(columns) // 2)).flat):
        if c >= len(columns):
            panel.set_axis_off()
            continue
        for place, row in enumerate(rows):
            colour = COLOURS[place % len(COLOURS)]
            draw_interval(panel, row.estimates[c], place, vertical=True, colour=colour)
            panel.plot([place], [drawn_mean(row.estimates[c])], "o", color=colour, markersize=7)
            of_seeds = [drawn_mean(each.estimates[c]) for each in single.rows if each.label == row.label]
            panel.plot([place + ASIDE] * len(of_seeds), of_seeds, "x", color=GREY)
        panel.set_xticks(range(len(rows)), [plain(row.label).replace(" ", "\n", 1) for row in rows])
        panel.set_xlim(-0.5, len(rows) - 0.5)
        panel.set_title(axis_title(columns[c]))
        panel.grid(axis="y", alpha=0.3)
    figure.suptitle(f"{plain(title)}: means over seeds with intervals over edits; crosses are seeds", fontsize=10)
    return figure
