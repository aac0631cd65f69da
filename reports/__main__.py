"""`python -m reports`: render the tables and plots of finished runs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from reports.benchmark import render
from reports.committed import place_tables
from reports.gallery.write import read_benchmark_runs, with_pages, write_gallery
from reports.runs import ReportError, find_runs

RUNS = Path("runs")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Example: python -m reports --runs runs/miniature --out tables

    Render Markdown, LaTeX, CSV and HTML tables, and plots, from run directories.
    """

    runs: tuple[Path, ...] = (RUNS,)
    """Run directories, or folders that hold them."""
    out: Path | None = None
    """Where the tables go; without it to reports/<suite> for each suite found, beside the committed rows there."""
    allow_partial: bool = False
    """Average what is done of unfinished runs, with n/N in the row."""
    gallery: Path | None = None
    """Also make a page of the runs' pictures in this folder. `python -m benchmarks.gallery` makes it with the sources,
    masks and prompts of the data sets, which run directories don't hold."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status; what is wrong with the runs goes to standard error."""
    settings = tyro.cli(Settings, args=arguments, prog="python -m reports")
    try:
        for path in render_all(settings):
            print(path)
        if settings.gallery:
            benchmarks = [read_benchmark_runs(run_dirs) for run_dirs in with_pages(find_runs(settings.runs))]
            print(write_gallery(benchmarks, settings.gallery))
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # no room, no permission: it names the file
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def render_all(settings: Settings) -> list[Path]:
    """Render each benchmark of each suite that is found; with `out`, all of one benchmark into that folder."""
    run_dirs_of: dict[tuple[str, str], list[Path]] = {}
    for (suite, benchmark), run_dirs in find_runs(settings.runs).items():
        run_dirs_of.setdefault(("" if settings.out else suite, benchmark), []).extend(run_dirs)
    written = []
    for (suite, benchmark), run_dirs in run_dirs_of.items():
        place = place_tables(run_dirs, settings.out or Path("reports") / suite, RUNS / "reports" / suite)
        if place.message:
            print(place.message, file=sys.stderr)
        written += render(benchmark, place, allow_partial=settings.allow_partial, plots=True)
    return written


if __name__ == "__main__":
    sys.exit(main())
