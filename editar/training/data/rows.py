"""What every reader yields, whatever its data set (image cells, a text, and where they were found), and the training
example that it becomes: images decoded and squared as released, canny made, pairs turned round, prompts.

A cell is {"bytes": ...} with an image file or {"path": ...} that names one, as the hub's image columns are. Nothing is
decoded by a reader: a row that this process only skips over costs no more than its reading.
"""

import tomllib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from editar.images import ImageError, open_turned, square
from editar.io.image_files import turned_along
from editar.prompts import TASKS, translation_prompt

CANNY_THRESHOLDS = (0.1, 0.2)  # the released training's, of kornia

Row = dict[str, Any]
Cell = dict[str, Any]


class RowFault(ValueError):
    """What is wrong with one row, without its place."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One of the data sets: its columns, and what is learned from it.

    source: the column of the condition image, None where it is made from the target. task: "edit" or one of
    prompts.TASKS. repository: the hub's data set with parquet files, None for jsonl files beside a folder of images;
    lines, images: where these two lie in its folder. swap: whether half of the pairs are turned round, from adding a
    thing to removing it.
    """

    target: str
    text: str
    task: str
    source: str | None = None
    repository: str | None = None
    lines: str = ""
    images: str = ""
    swap: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.source, self.target, self.text)))


KINDS: dict[str, Kind] = {
    name: Kind(**table) for name, table in tomllib.loads(Path(__file__).with_name("kinds.toml").read_text()).items()
}


def good_row(kind: str, origin: str, source: Cell | None, target: Cell, text: str) -> Row:
    """origin: the file and the place in it, for logs."""
    return {"kind": kind, "origin": origin, "source": source, "target": target, "text": text, "fault": None}


def faulty_row(kind: str, origin: str, fault: str) -> Row:
    """A row that could not be read goes the way of the others, so that every process counts it at the same place."""
    return {"kind": kind, "origin": origin, "source": None, "target": None, "text": None, "fault": fault}


@dataclass(frozen=True, kw_only=True)
class Example:
    """source, target: uint8 (3, side, side) RGB. task: "edit", "depth", "canny" or "segmentation".

    skipped: what was wrong with the rows since the example before, each with its place.
    """

    origin: str
    task: str
    text: str
    source: Tensor
    target: Tensor
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """side: pixels of the square images; template: the wording of prompts.TEMPLATES; seed: of the swaps."""

    side: int
    template: str = "released"
    seed: int = 0

    def __call__(self, row: Row) -> Example:
        """row: of a reader, and "draw", a number that is another one each time that the row comes round.

        Raises RowFault when the row can't be used.
        """
        kind = KINDS[row["kind"]]
        if row["fault"] is not None:
            raise RowFault(row["fault"])
        if row["text"] is None:
            raise RowFault(f"{kind.text} is empty")
        image, orientation = _image(row["target"], kind.target)
        target, text = self._pixels(image), row["text"]
        if kind.source is None:
            source = canny(target)
        else:
            condition, own_orientation = _image(row["source"], kind.source)
            if kind.task in TASKS and own_orientation == 1:  # a map, drawn on the pixels of the image's file
                condition = turned_along(condition, image.size, orientation)
            source = self._pixels(condition)
        if kind.swap and self._swapped(row):
            # The instructions are "Add ..."; the first four characters are cut unseen, as in the released code.
            source, target, text = target, source, "Remove " + text[4:]
        if kind.task in TASKS:
            text = translation_prompt(kind.task, text, self.template)
        return Example(origin=row["origin"], task=kind.task, text=text, source=source, target=target)

    def _swapped(self, row: Row) -> bool:
        place = row["origin"].rpartition("/")[2]  # the same wherever the data set lies
        key = (self.seed, zlib.crc32(place.encode()), row["draw"])
        return np.random.default_rng(key).random() < 0.5

    def _pixels(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(square(image, self.side))).permute(2, 0, 1).contiguous()


def _image(cell: Cell | None, name: str) -> tuple[Image.Image, int]:
    """Upright RGB, and the EXIF orientation by which it was turned."""
    data, path = (cell or {}).get("bytes"), (cell or {}).get("path")
    try:
        if data:
            return open_turned(data, name)
        if path:
            return open_turned(Path(path), path)
    except ImageError as error:
        raise RowFault(str(error)) from error
    raise RowFault(f"{name} is empty")


def canny(image: Tensor) -> Tensor:
    """The edges of an image uint8 (3, H, W), of the same shape, 0 and 255, by the steps of the released training."""
    from kornia.filters import canny as edges

    # There and back through [-1, 1], rounding as the released preparation does: edges depend on thresholds.
    pixels = torch.from_numpy(image.numpy() / 255.0 * 2 - 1).float()
    found = edges(((pixels + 1) / 2)[None], *CANNY_THRESHOLDS)[1][0]
    return (found * 255).byte().repeat(3, 1, 1)
