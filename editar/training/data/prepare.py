"""A row becomes a training example: images decoded and squared as released, canny made, pairs turned round, prompts."""

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from editar.images import ImageError, decode_image, open_image, square
from editar.prompts import TASKS, translation_prompt
from editar.training.data.rows import KINDS, Cell, Row, RowFault

CANNY_THRESHOLDS = (0.1, 0.2)  # the released training's, of kornia


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
        target, text = self._pixels(row["target"], kind.target), row["text"]
        source = canny(target) if kind.source is None else self._pixels(row["source"], kind.source)
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

    def _pixels(self, cell: Cell | None, name: str) -> Tensor:
        try:
            image = square(_image(cell, name), self.side)
        except ImageError as error:
            raise RowFault(str(error)) from error
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _image(cell: Cell | None, name: str) -> Image.Image:
    data, path = (cell or {}).get("bytes"), (cell or {}).get("path")
    if data:
        return decode_image(data, name)
    if path:
        return open_image(path)
    raise RowFault(f"{name} is empty")


def canny(image: Tensor) -> Tensor:
    """The edges of an image uint8 (3, H, W), of the same shape, 0 and 255, by the steps of the released training."""
    from kornia.filters import canny as edges

    # There and back through [-1, 1], rounding as the released preparation does: edges depend on thresholds.
    pixels = torch.from_numpy(image.numpy() / 255.0 * 2 - 1).float()
    found = edges(((pixels + 1) / 2)[None], *CANNY_THRESHOLDS)[1][0]
    return (found * 255).byte().repeat(3, 1, 1)
