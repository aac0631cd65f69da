"""The pictures of a gallery: WebP files, as they are where they are small, else compressed and with a thumbnail."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from reports.pictures import Shown, read_picture
from reports.runs import ReportError, Run

FILES = "gallery-files"
SMALL = 256  # pixels along a side: pictures up to this size go in losslessly and are their own thumbnails
FULL_QUALITY, SMALL_QUALITY = 90, 80
MASK_SIDE = 512  # at least, so that its outline is a fine line
OUTLINE = 3  # pixels
MASK_COLOUR, MASK_INSIDE = (255, 0, 128), 70  # RGB, and alpha within the outline

_SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class Written:
    """folders: of the methods. inputs: {title, folder}. mask: its folder. side: pixels of the pictures, 0 without one.
    small: whether there are thumbnails. texts: by label, of each sample. errors: for each method {place of the sample:
    why there is no picture}."""

    folders: list[str]
    inputs: list[dict[str, str]]
    mask: str | None
    side: int
    small: bool
    texts: dict[str, list[str]]
    errors: list[dict[int, str]]


class GalleryFiles:
    """folder: of one group of runs, new."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(
        self,
        runs: Sequence[Run],
        labels: Sequence[str],
        sample_ids: Sequence[str],
        shown: Callable[[str], Shown] | None,
    ) -> Written:
        """Writes what the data set shows and what the runs made, sample by sample in as many threads as processors."""
        if bad := next((name for name in sample_ids if not _SAFE_ID.fullmatch(name)), None):
            raise ReportError(f"sample id {bad!r} can't be the name of a file; use letters, digits, '-', '_' and '.'")
        folders = _distinct([file_name(label) for label in labels])

        def one(sample_id: str) -> tuple[Shown | None, list[str | int]]:
            """What is known of the sample, without its pictures, and for each run the picture's side or an error."""
            known = shown(sample_id) if shown else None
            inputs: Mapping[str, Image.Image] = known.pictures if known else {}
            for title, picture in inputs.items():
                self._save(picture, f"input-{file_name(title)}", sample_id)
            if known is not None and known.mask is not None:
                self._write(overlay(known.mask), "full", "input-mask", sample_id, lossless=True)
            made: list[str | int] = []
            for run, folder in zip(runs, folders, strict=True):
                picture_or_error = read_picture(run, sample_id)
                if isinstance(picture_or_error, Image.Image):
                    self._save(picture_or_error, folder, sample_id)
                    made.append(picture_or_error.width)
                else:
                    made.append(picture_or_error)
            if known is not None:
                blank = dict.fromkeys(known.pictures, Image.new("RGB", (1, 1)))
                known = Shown(texts=known.texts, pictures=blank, mask=None if known.mask is None else np.empty((0, 0)))
            return known, made

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            rows = pool.map(one, sample_ids)
            results = list(tqdm(rows, "gallery", len(sample_ids), unit="sample", leave=False, delay=2))
        return _written(folders, results)

    def _save(self, picture: Image.Image, column: str, sample_id: str) -> None:
        if picture.width <= SMALL:
            self._write(picture, "full", column, sample_id, lossless=True)
            return
        self._write(picture, "full", column, sample_id, quality=FULL_QUALITY)
        height = round(SMALL * picture.height / picture.width)
        thumbnail = picture.resize((SMALL, height), Image.Resampling.LANCZOS)
        self._write(thumbnail, "small", column, sample_id, quality=SMALL_QUALITY)

    def _write(self, picture: Image.Image, size: str, column: str, sample_id: str, **options: Any) -> None:
        path = self.folder / size / column / f"{sample_id}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="WEBP", **options)


def file_name(text: str) -> str:
    """`text` as the name of a folder and a part of an address, on any system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.").lower() or "unnamed"


def overlay(mask: np.ndarray) -> Image.Image:
    """A mask, bool (height, width), as an RGBA picture to lie over others: tinted where it is True, and outlined."""
    factor = max(1, -(-MASK_SIDE // max(mask.shape)))
    inside = mask.repeat(factor, 0).repeat(factor, 1)
    core = np.pad(inside, OUTLINE)
    for axis in (0, 1):
        core = np.logical_and.reduce([np.roll(core, shift, axis) for shift in range(-OUTLINE, OUTLINE + 1)])
    core = core[OUTLINE:-OUTLINE, OUTLINE:-OUTLINE]
    pixels = np.zeros((*inside.shape, 4), np.uint8)
    pixels[inside] = (*MASK_COLOUR, 255)
    pixels[core] = (*MASK_COLOUR, MASK_INSIDE)
    return Image.fromarray(pixels)


def _distinct(names: Sequence[str]) -> list[str]:
    """Equal names get a number."""
    found: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in found:
            number += 1
            candidate = f"{name}-{number}"
        found.append(candidate)
    return found


def _written(folders: list[str], results: Sequence[tuple[Shown | None, list[str | int]]]) -> Written:
    known = [each for each, _ in results if each is not None]
    sides = [side for _, made in results for side in made if isinstance(side, int)]
    side = max(sides, default=0)
    return Written(
        folders=folders,
        inputs=[{"title": title, "folder": f"input-{file_name(title)}"} for title in (known[0].pictures if known else ())],
        mask="input-mask" if known and known[0].mask is not None else None,
        side=side,
        small=side > SMALL,
        texts={label: [each.texts[label] for each in known] for label in (known[0].texts if known else ())},
        errors=[
            {place: reason for place, (_, made) in enumerate(results) if isinstance(reason := made[column], str)}
            for column in range(len(folders))
        ],
    )  # fmt: skip
