"""What a benchmark's command ends with: the tables and plots of its finished runs, and an image sheet if it has one."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.cli import RunArguments
from benchmarks.runs.store import RunDirectory
from reports.destination import destination
from reports.renderers import render


def write_results(
    args: RunArguments,
    suite: str,
    benchmark: str,
    runs: Sequence[RunDirectory],
    draw_sheet: Callable[[Path], Path] | None = None,
) -> list[Path]:
    """Writes tables and sheet and prints the comparison; returns the files written. The user is told where they go, and
    what stands beside the runs' rows.

    draw_sheet: writes the sheet to the path that it is given; it is drawn first, for tables may be refused. It lies
    beside the tables, unless these have rows whose images aren't of these runs.
    """
    folders = [each.folder for each in runs]
    place = destination(folders, args.reports(suite), args.out / "reports" / suite)
    if place.message:
        print(place.message, file=sys.stderr)
    sheet = (args.out / suite if place.committed else place.folder) / f"{benchmark}.png"
    drawn = [draw_sheet(sheet)] if draw_sheet is not None else []
    plots = place.plots or not drawn  # something is to be seen in any case
    files = [*render(benchmark, folders, place, allow_partial=args.allow_partial, plots=plots), *drawn]
    print((place.folder / f"{benchmark}.md").read_text("utf-8"))
    print("\n".join(f"written: {path}" for path in files))
    return files
