"""The image sheet of a benchmark: for a few samples, what the methods were shown and what each made of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from benchmarks.runs.schema import RunError
from benchmarks.runs.store import RunDirectory
from editar.io.image_files import write_png
from reports.sheets.layout import SheetRow
from reports.sheets.pictures import CHANGED, NOT_REACHED, Shown
from reports.sheets.sheet import draw_sheet, spread


class ShowsSamples(Protocol):
    """A task that tells what belongs to a sample's row."""

    @property
    def protocol(self) -> str: ...

    def shown(self, sample_id: str) -> Shown: ...


def write_sheet(
    task: ShowsSamples, runs: Sequence[RunDirectory], sample_ids: Sequence[str], count: int, path: Path, title: str
) -> Path:
    """Writes the sheet of `count` samples to the PNG file `path`, which is returned.

    The samples are those that lie in the middles of `count` equal parts of `sample_ids`, whatever became of them: a
    cell without an image says why.
    """
    chosen = spread(sample_ids, count)
    rows, inputs = [], []
    for sample_id in chosen:
        shown = task.shown(sample_id)
        inputs = list(shown.pictures)
        results = [_result(run, sample_id) for run in runs]
        rows.append(SheetRow(caption=f"{sample_id}: {shown.request}", cells=(*shown.pictures.values(), *results)))
    choice = f"{len(chosen)} of {len(sample_ids)} samples, at equal distances in the order of their ids"
    sheet = draw_sheet(f"{title}, {task.protocol}: {choice}", [*inputs, *(run.method for run in runs)], rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(sheet, path)
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
