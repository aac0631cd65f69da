"""Images, captions and train ids as parquet rows hold them, decoded with every check."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from editar.io import image_files
from editar.io.image_files import MAX_BYTES, ImageError
from editar.io.texts import first_of

MAX_PIXELS = 1 << 24  # the largest image on the hub has 640 x 640
T = TypeVar("T")
IGNORED = 255  # the train id of pixels that don't count


class CellError(ValueError):
    """What is wrong with one value of a column, without its place."""


def image_bytes(value: pa.Scalar) -> bytes:
    """The file that the hub's image struct {bytes, path} holds. Raises CellError where there is none."""
    if data := value["bytes"].as_py() if value.is_valid else None:
        return data
    try:
        path = (value.as_py() or {}).get("path")
    except ValueError as error:  # a name that is not UTF-8, a time that Python can't hold
        raise CellError(f"it is empty, and what stands beside it can't be read ({error})") from error
    raise CellError(f"it names the file {path!r} instead of holding it" if path else "it is empty")


def decode_rgb(data: bytes) -> tuple[Image.Image, int]:
    """The image of a file, upright RGB, and the EXIF orientation by which it was turned.

    Transparency is dropped, not put on a colour: both published evaluations do so. The size is taken from the header,
    before anything is decoded: a decompression bomb is refused unopened. Raises CellError.
    """
    return _decoded(image_files.open_turned, data, on_white=False)


def _decoded(decode: Callable[..., T], data: bytes, **options: bool) -> T:
    if len(data) > MAX_BYTES:
        raise CellError(f"it has {len(data)} bytes; more than {MAX_BYTES} are not read")
    try:
        return decode(data, max_pixels=MAX_PIXELS, **options)
    except ImageError as error:
        raise CellError(str(error)) from error


def caption(value: pa.Scalar) -> str:
    """A text that says something. Raises CellError."""
    try:
        text = value.as_py()
    except UnicodeDecodeError as error:
        raise CellError(f"byte {error.start} is not UTF-8") from error
    if not (text or "").strip():
        raise CellError("the caption is empty")
    return text


def train_ids(value: pa.Scalar, classes: int) -> np.ndarray:
    """A label column's value as uint8 (height, width): train ids 0 to classes - 1, and 255 where nothing counts.

    The hub stores a list of rows; a grey image that holds the ids is read too. Raises CellError for all else: for
    colours (a palette or RGB image) as they are no ids, for rows of different lengths, for ids out of range.
    """
    if not value.is_valid:
        raise CellError("it is empty")
    ids = _grey_levels(image_bytes(value)) if pa.types.is_struct(value.type) else _matrix(value)
    present = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)) if ids.dtype == np.uint8 else np.unique(ids)
    if foreign := [int(number) for number in present if not (0 <= number < classes or number == IGNORED)]:
        shown = first_of([str(number) for number in foreign], 5)
        raise CellError(f"it has the train ids {shown}; they must be from 0 to {classes - 1}, or {IGNORED}")
    return ids.astype(np.uint8)


def _grey_levels(data: bytes) -> np.ndarray:
    image = _decoded(image_files.decode_image, data)
    if image.mode != "L":
        kind = "a palette image" if image.mode in ("P", "PA") else f"an image of Pillow's mode {image.mode!r}"
        raise CellError(f"it is {kind}; colours are no train ids, which are a grey image or a list of rows")
    return np.asarray(image)


def _matrix(value: pa.Scalar) -> np.ndarray:
    rows = value.values
    lengths = set(rows.value_lengths().to_pylist())  # None for a row that is null
    if len(lengths) != 1 or not (width := lengths.pop()):
        raise CellError("its rows are empty or not all of one length")
    pixels = rows.flatten()
    if pixels.null_count:
        raise CellError("it has pixels without a value")
    return pixels.to_numpy().reshape(len(rows), width)
