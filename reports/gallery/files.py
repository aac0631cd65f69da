"""The pictures of a gallery: WebP files, as they are where they are small, else compressed and with a thumbnail."""

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.runs.schema import SAMPLE_ID
from editar.io.atomic import write_bytes
from reports.runs import ReportError, Run
from reports.sheets.sheet import SampleView, read_picture

FILES = "gallery-files"
SMALL = 256  # pixels along a side: pictures up to this size go in losslessly and are their own thumbnails
FULL_QUALITY, SMALL_QUALITY = 90, 80
LOSSLESS = {"lossless": True, "method": 1, "quality": 30}  # of the effort, not of the pictures
MASK = "input-mask"
MASK_SIDE = 512  # at least, so that its outline is a fine line
OUTLINE = 3  # pixels
MASK_COLOUR, MASK_INSIDE = (255, 0, 128), 50  # RGB, and alpha within the outline


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


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """made: for each run the picture's width in pixels, or why there is none. The rest is of the data set."""

    made: list[str | int]
    texts: Mapping[str, str] = field(default_factory=dict)
    titles: tuple[str, ...] = ()
    masked: bool = False


def write_pictures(
    folder: Path,
    runs: Sequence[Run],
    labels: Sequence[str],
    sample_ids: Sequence[str],
    view: Callable[[str], SampleView] | None,
) -> Written:
    """Writes what the data set shows and what the runs made, sample by sample in as many threads as processors.

    folder: of these runs, new.
    """
    if bad := next((name for name in sample_ids if not SAMPLE_ID.fullmatch(name)), None):
        raise ReportError(f"sample id {bad!r} can't be the name of a file; use letters, digits, '-', '_' and '.'")
    folders = _distinct([file_name(label) for label in labels])

    def one(sample_id: str) -> _Sample:
        made: list[str | int] = []
        for run, column in zip(runs, folders, strict=True):
            picture = read_picture(run, sample_id)
            if isinstance(picture, Image.Image):
                _save(picture, folder, column, sample_id)
            made.append(picture if isinstance(picture, str) else picture.width)
        if view is None:
            return _Sample(made=made)
        known = view(sample_id)
        for title, picture in known.pictures.items():
            _save(picture, folder, _input_folder(title), sample_id)
        if known.mask is not None:
            _write(overlay(known.mask), folder / "full" / MASK, sample_id, **LOSSLESS)
        return _Sample(made=made, texts=known.texts, titles=tuple(known.pictures), masked=known.mask is not None)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        samples = pool.map(one, sample_ids)
        bar = tqdm(samples, "gallery", len(sample_ids), unit="sample", leave=False, delay=2, mininterval=1)
        return _written(folders, list(bar))


def _save(picture: Image.Image, folder: Path, column: str, sample_id: str) -> None:
    if picture.width <= SMALL:
        _write(picture, folder / "full" / column, sample_id, **LOSSLESS)
        return
    _write(picture, folder / "full" / column, sample_id, quality=FULL_QUALITY)
    height = round(SMALL * picture.height / picture.width)
    thumbnail = picture.resize((SMALL, height), Image.Resampling.LANCZOS)
    _write(thumbnail, folder / "small" / column, sample_id, quality=SMALL_QUALITY)


def _write(picture: Image.Image, folder: Path, sample_id: str, **options: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = BytesIO()
    picture.save(content, format="WEBP", **options)
    write_bytes(folder / f"{sample_id}.webp", content.getvalue())


def file_name(text: str) -> str:
    """`text` as the name of a folder and a part of an address, on any system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.").lower() or "unnamed"


def overlay(mask: np.ndarray) -> Image.Image:
    """A mask, bool (height, width), as an RGBA picture to lie over others: tinted where it is True, and outlined."""
    factor = max(1, -(-MASK_SIDE // max(mask.shape)))
    inside = mask.repeat(factor, 0).repeat(factor, 1)
    core = np.pad(inside, OUTLINE, mode="edge")  # no outline along the sides of the picture
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
        candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        found.append(next(each for each in candidates if each not in found))
    return found


def _input_folder(title: str) -> str:
    return f"input-{file_name(title)}"


def _written(folders: list[str], samples: Sequence[_Sample]) -> Written:
    first = samples[0] if samples else _Sample(made=[])
    side = max((each for sample in samples for each in sample.made if isinstance(each, int)), default=0)
    return Written(
        folders=folders,
        inputs=[{"title": title, "folder": _input_folder(title)} for title in first.titles],
        mask=MASK if first.masked else None,
        side=side,
        small=side > SMALL,
        texts={label: [sample.texts[label] for sample in samples] for label in first.texts},
        errors=[
            {place: reason for place, sample in enumerate(samples) if isinstance(reason := sample.made[column], str)}
            for column in range(len(folders))
        ],
    )
