"""The ablations' plots, drawn of what their tables show."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reports.statistics import Estimate
from reports.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRADE_OFFS = (("clip_edited", "structure_distance"), ("clip_whole", "psnr"))  # alignment, preservation
DOTS_PER_INCH = 110


def plot_guidance(table: Table, path: Path) -> Path:
    """Preservation over alignment: a point with its intervals for each strength, a square for each reference.

    table: the first of ablations.guidance_tables.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows = [row for block in table.blocks for row in block.rows]
    colours = colormaps["viridis"].resampled(len(rows))
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    panels = figure.subplots(1, len(TRADE_OFFS))
    for axes, keys in zip(panels, TRADE_OFFS, strict=True):
        x, y = (_place(table, key) for key in keys)
        swept = [row for row in rows if not row.reference]
        path_x, path_y = ([_number(row.estimates[place]) for row in swept] for place in (x, y))
        axes.plot(path_x, path_y, color="lightgray", zorder=0)
        for number, row in enumerate(rows):
            across, up = row.estimates[x], row.estimates[y]
            axes.errorbar(
                [_number(across)], [_number(up)], xerr=_margins([across]), yerr=_margins([up]), capsize=2,
                elinewidth=0.7, label=f"{row.label}{f' ({row.kind})' if row.kind else ''}",
                fmt="s" if row.reference else "o", color="tab:gray" if row.reference else colours(number),
            )  # fmt: skip
        axes.set(xlabel=_axis(table, x), ylabel=_axis(table, y))
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.suptitle("EditAR, miniature: preservation and alignment by the strength of guidance (eta)", fontsize=11)
    return _save(figure, path)


def plot_distillation(table: Table, path: Path) -> Path:
    """A panel for each column: the means over the seeds with their intervals, and those of single seeds.

    table: the first of ablations.distillation_tables, whose blocks are all seeds together, and seed by seed.
    """
    from matplotlib.figure import Figure

    together, single = table.blocks
    rows = [row for row in together.rows if not row.reference]
    figure = Figure(figsize=(14, 6), layout="constrained")
    panels = figure.subplots(2, -(-len(table.columns) // 2)).flat
    for column, axes in enumerate(panels):
        if column >= len(table.columns):
            axes.set_axis_off()
            continue
        for place, row in enumerate(rows):
            estimate = row.estimates[column]
            axes.errorbar([place], [_number(estimate)], yerr=_margins([estimate]), fmt="o", capsize=4)
            of_seeds = [each.estimates[column] for each in single.rows if each.label == row.label]
            axes.plot([place + 0.15] * len(of_seeds), list(map(_number, of_seeds)), "x", color="tab:gray")
        axes.set_xticks(range(len(rows)), [row.label.replace(" ", "\n", 1) for row in rows], fontsize=8)
        axes.set_xlim(-0.5, len(rows) - 0.5)
        axes.set_title(_axis(table, column), fontsize=8)
        axes.grid(axis="y", alpha=0.3)
    figure.suptitle(
        "Distillation, miniature: means over seeds with intervals over edits; crosses are seeds", fontsize=11
    )
    return _save(figure, path)


def _margins(estimates: Sequence[Estimate]) -> list[list[float]]:
    """How far the intervals reach below and above the means; nothing where there is no interval."""
    below, above = [], []
    for estimate in estimates:
        mean = _number(estimate)
        below.append(0.0 if estimate.low is None else mean - estimate.low)
        above.append(0.0 if estimate.high is None else estimate.high - mean)
    return [below, above]


def _number(estimate: Estimate) -> float:
    return float("nan") if estimate.mean is None else estimate.mean


def _place(table: Table, key: str) -> int:
    return next(place for place, column in enumerate(table.columns) if column.key == key)


def _axis(table: Table, place: int) -> str:
    column = table.columns[place]
    power = f" x 10^{column.power}" if column.power else ""
    better = "higher" if column.higher_is_better else "lower"
    network = f"\n({column.network})" if column.network else ""
    return f"{column.title}{power}, {better} is better{network}"


def _save(figure: "Figure", path: Path) -> Path:
    """Without the library's name and version in it: equal pictures are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
    return path
