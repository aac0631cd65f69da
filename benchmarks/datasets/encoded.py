"""Images, captions and train ids as parquet rows hold them, decoded with every check."""

import numpy as np
import pyarrow as pa
from PIL import Image

from editar.io import image_files
from editar.io.image_files import FORMATS, MAX_BYTES, ImageError

# A few images of MultiGen-20M are TIFF.
HUB_FORMATS = (*FORMATS, "TIFF")
MAX_PIXELS = 1 << 24  # the largest image on the hub has 640 x 640
IGNORED = 255  # the train id of pixels that don't count
# The others hold 16 or 32 bits a channel, which a conversion to RGB would clip.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


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


def decode_image(data: bytes) -> Image.Image:
    """The first image of a PNG, JPEG, WebP or TIFF file, in its own mode, of 8 bits a channel or fewer.

    The size is taken from the header, before anything is decoded: a decompression bomb is refused unopened. Raises
    CellError.
    """
    if len(data) > MAX_BYTES:
        raise CellError(f"it has {len(data)} bytes; more than {MAX_BYTES} are not read")
    try:
        return image_files.decode_image(data, formats=HUB_FORMATS, max_pixels=MAX_PIXELS, modes=_MODES)
    except ImageError as error:
        raise CellError(str(error)) from error


def decode_rgb(data: bytes) -> Image.Image:
    """As `decode_image`, in RGB. Transparency is dropped, not put on a colour: both published evaluations do so."""
    return decode_image(data).convert("RGB")


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
        shown = ", ".join(map(str, foreign[:5])) + (" ..." if len(foreign) > 5 else "")
        raise CellError(f"it has the train ids {shown}; they must be from 0 to {classes - 1}, or {IGNORED}")
    return ids.astype(np.uint8)


def _grey_levels(data: bytes) -> np.ndarray:
    image = decode_image(data)
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
