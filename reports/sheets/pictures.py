"""The pictures of a run directory, read with every check, and what a data set shows of a sample beside them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from editar.io.digests import bytes_digest
from editar.io.image_files import ImageError, open_image
from reports.runs import Run
from reports.sheets.sheet import SheetBlock, SheetRow

NOT_REACHED = "not made yet"
CHANGED = "the file is gone or isn't the image that was made"
MAX_PIXELS = 4096**2  # nothing that a benchmark makes comes near it
ENLARGED_BELOW = 256  # pixels along a side


@dataclass(frozen=True, kw_only=True)
class SampleView:
    """What a data set says and shows of a sample; labels and titles are the same for all samples of a benchmark.

    texts: by label, first what the methods were asked for. pictures: RGB, by title, first what they were given.
    mask: bool (height, width), True where the edit belongs; None where the benchmark has none.
    """

    texts: Mapping[str, str]
    pictures: Mapping[str, Image.Image]
    mask: np.ndarray | None = None

    @property
    def request(self) -> str:
        return next(iter(self.texts.values()))


def read_picture(run: Run, sample_id: str) -> Image.Image | str:
    """The picture that a run made of a sample, RGB, or why there is none."""
    if sample_id not in run.attempted.index:
        return NOT_REACHED
    digest, error = (run.attempted.at[sample_id, column] for column in ("image_sha256", "error"))
    if pd.isna(digest):
        return NOT_REACHED if pd.isna(error) else str(error)
    try:
        data = (run.path / "images" / f"{sample_id}.png").read_bytes()
    except OSError:
        return CHANGED
    if bytes_digest(data) != digest:
        return CHANGED
    try:
        return open_image(data, max_pixels=MAX_PIXELS)
    except ImageError as fault:
        return str(fault)


def sheet_block(runs: Mapping[str, Run], samples: Mapping[str, SampleView], *, with_ids: bool = True) -> SheetBlock:
    """Rows of what samples (by id) show and what runs (by header) made of them, above the request and the id."""
    inputs: list[str] = []
    rows = []
    for sample_id, view in samples.items():
        inputs = list(view.pictures)
        made = [read_picture(run, sample_id) for run in runs.values()]
        caption = f"{sample_id}: {view.request}" if with_ids else view.request
        rows.append(SheetRow(caption=caption, cells=(*view.pictures.values(), *made)))
    return SheetBlock(headers=[*inputs, *runs], rows=rows)


def enlarged(picture: Image.Image) -> Image.Image:
    """Small pictures by a whole number, so that every pixel stays a square in whatever shows them; others as they
    are."""
    factor = max(1, -(-ENLARGED_BELOW // picture.width))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
