"""The end of a benchmark's command: tables and plots of its runs, and a sheet of what they made of a few samples."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.runs.arguments import DEFAULT_OUT, RunArguments
from benchmarks.runs.store import RunDirectory
from editar.io.image_files import write_png
from reports.benchmark import render
from reports.committed import place_tables
from reports.runs import read_run
from reports.sheets.sheet import SampleView, draw_sheet, sheet_block, spread


def write_results(
    args: RunArguments,
    suite: str,
    benchmark: str,
    runs: Sequence[RunDirectory],
    sheet: Callable[[Path], Path] | None = None,
) -> list[Path]:
    """Writes tables and sheet and prints the comparison; returns the files written. The user is told where they go, and
    what stands beside the runs' rows.

    sheet: writes the sheet to the path that it is given; it is drawn first, for tables may be refused. It lies
    beside the tables, unless these have rows whose images aren't of these runs.
    """
    folders = [each.folder for each in runs]
    below_out = args.out / "reports" / suite
    committed = Path("reports") / suite if args.out == DEFAULT_OUT else below_out
    place = place_tables(folders, committed, below_out)
    if place.message:
        print(place.message, file=sys.stderr)
    beside = place.folder if place.all_run else args.out / suite
    drawn = [sheet(beside / f"{benchmark}.png")] if sheet is not None else []
    plots = place.beside_committed or not drawn  # something is to be seen in any case
    files = [*render(benchmark, place, allow_partial=args.allow_partial, plots=plots), *drawn]
    print((place.folder / f"{benchmark}.md").read_text("utf-8"))
    print("\n".join(f"written: {path}" for path in files))
    return files


def write_sheet(
    view: Callable[[str], SampleView],
    runs: Sequence[RunDirectory],
    sample_ids: Sequence[str],
    count: int,
    path: Path,
    title: str,
) -> Path:
    """Writes the sheet of `count` samples to the PNG file `path`, which is returned.

    view: of a sample. The samples are those that lie in the middles of `count` equal parts of `sample_ids`, whatever
    became of them: a cell without an image says why.
    """
    chosen = spread(sample_ids, count)
    block = sheet_block({run.method: read_run(run.folder) for run in runs}, {name: view(name) for name in chosen})
    choice = f"{len(chosen)} of {len(sample_ids)} samples, at equal distances in the order of their ids"
    drawn = draw_sheet(f"{title}: {choice}", block.headers, block.rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(drawn, path)
    return path
