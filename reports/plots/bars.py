"""A bar of every row in every column, with its interval."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.plots.style import COLOURS, GREY, axis_title, draw_interval, drawn_mean, new_figure, plain, styled
from reports.tables.model import Block, Column, Row
from reports.tables.statistics import LEVEL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_INCHES, PANEL_INCHES, LABEL_INCHES = 0.27, 1.75, 1.7


@styled()
def draw_bars(title: str, columns: Sequence[Column], measured: Block, published: Block | None) -> "Figure | None":
    """A panel for each column that has values, a bar for each row; None where there is nothing to draw.

    published: the rows whose values are marked beside the bars, where they may be compared.
    """
    from matplotlib.patches import Patch

    drawn = [c for c in range(len(columns)) if any(drawn_mean(row.estimates[c]) is not None for row in measured.rows)]
    rows = [row for row in measured.rows if any(drawn_mean(row.estimates[c]) is not None for c in drawn)]
    if not rows:
        return None
    kinds = list(dict.fromkeys(row.kind for row in rows if not row.reference))
    figure = new_figure(LABEL_INCHES + PANEL_INCHES * len(drawn), 1.6 + ROW_INCHES * len(rows))
    panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    known = {row.published_as: row for row in published.rows} if published else {}
    for panel, c in zip(panels, drawn, strict=True):
        for position, row in enumerate(rows):
            if (mean := drawn_mean(row.estimates[c])) is not None:
                panel.barh(position, mean, color=_colour(row, kinds), height=0.7)
                draw_interval(panel, row.estimates[c], position)
            paper = known.get(row.published_as)
            if paper is not None and (mean := drawn_mean(paper.estimates[c])) is not None:
                panel.plot(mean, position, marker="D", color="black", fillstyle="none", markersize=5)
        name, _, network = axis_title(columns[c]).partition("\n")
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
    return figure


def _colour(row: Row, kinds: Sequence[str]) -> str:
    return GREY if row.reference else COLOURS[kinds.index(row.kind) % len(COLOURS)]
