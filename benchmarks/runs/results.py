"""The end of a benchmark's command: tables and plots of its runs, and a sheet of what they made of a few samples."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from benchmarks.cli import RunArguments
from benchmarks.runs.schema import RunError
from benchmarks.runs.store import RunDirectory
from editar.io.image_files import write_png
from reports.benchmark import render
from reports.placement import place_tables
from reports.sheets.layout import SheetRow
from reports.sheets.pictures import CHANGED, NOT_REACHED, Shown
from reports.sheets.sheet import draw_sheet, spread


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
    place = place_tables(folders, args.reports(suite), args.out / "reports" / suite)
    if place.message:
        print(place.message, file=sys.stderr)
    beside = place.folder if place.all_run else args.out / suite
    drawn = [sheet(beside / f"{benchmark}.png")] if sheet is not None else []
    plots = place.beside_committed or not drawn  # something is to be seen in any case
    files = [*render(benchmark, place, allow_partial=args.allow_partial, plots=plots), *drawn]
    print((place.folder / f"{benchmark}.md").read_text("utf-8"))
    print("\n".join(f"written: {path}" for path in files))
    return files


class Viewable(Protocol):
    """A benchmark whose samples can be looked at."""

    @property
    def protocol(self) -> str: ...

    def view(self, sample_id: str) -> Shown: ...


def write_sheet(
    benchmark: Viewable, runs: Sequence[RunDirectory], sample_ids: Sequence[str], count: int, path: Path, title: str
) -> Path:
    """Writes the sheet of `count` samples to the PNG file `path`, which is returned.

    The samples are those that lie in the middles of `count` equal parts of `sample_ids`, whatever became of them: a
    cell without an image says why.
    """
    chosen = spread(sample_ids, count)
    rows, inputs = [], []
    for sample_id in chosen:
        view = benchmark.view(sample_id)
        inputs = list(view.pictures)
        results = [_result(run, sample_id) for run in runs]
        rows.append(SheetRow(caption=f"{sample_id}: {view.request}", cells=(*view.pictures.values(), *results)))
    choice = f"{len(chosen)} of {len(sample_ids)} samples, at equal distances in the order of their ids"
    drawn = draw_sheet(f"{title}, {benchmark.protocol}: {choice}", [*inputs, *(run.method for run in runs)], rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(drawn, path)
    return path


def _result(run: RunDirectory, sample_id: str) -> Image.Image | str:
    sample = run.samples.get(sample_id)
    if sample is None:
        return NOT_REACHED
    if sample.image_sha256 is None:
        return sample.error or NOT_REACHED
    try:
        return run.read_image(sample_id)
    except RunError:
        return CHANGED
