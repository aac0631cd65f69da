"""Images on disk and in memory: decoded with every check, written whole or not at all."""

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from editar.io.atomic import write_bytes
from editar.io.digests import bytes_digest
from editar.io.foreign import what_begins, what_it_is
from editar.io.image_modes import MAX_PIXELS, SIXTEEN_BITS, ImageError, orientation_of, to_rgb, turned

# Decoders of plain raster formats only: those of Pillow's others start programs (EPS) or are seldom fuzzed.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MAX_BYTES = 64 * 2**20

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of every PNG file: its length, name and checksum
_WARNINGS = threading.Lock()  # how a process treats warnings is one setting for all of its threads
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


def open_image(source: bytes | Path, **options: Any) -> Image.Image:
    """The image of a file, or of the bytes of one, as everybody here reads images: upright, RGB, 8 bits a channel.

    options: see `open_turned`, and its errors.
    """
    return open_turned(source, **options)[0]


def open_turned(
    source: bytes | Path,
    *,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int = MAX_PIXELS,
    size: tuple[int, int] | None = None,
    on_white: bool = True,
) -> tuple[Image.Image, int]:
    """As `open_image`, and EXIF's orientation by which the image was turned: what was drawn on the file's own pixels
    has to be turned likewise, see `turned`.

    What the header says is checked before anything is decoded, so that decompression bombs are refused unopened:
    max_pixels, and the exact `size` (width, height), of the upright image, if given. on_white: see `to_rgb`. Raises
    ImageError, which does not name the file.
    """
    with _opened(source, formats) as file:
        image, orientation = _stored(file, max_pixels, size)
        return turned(to_rgb(image, on_white=on_white), orientation), orientation


def decode_image(
    source: bytes | Path, *, formats: tuple[str, ...] = FORMATS, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """As `open_image`, but in the file's own mode: for images whose numbers are no colours."""
    with _opened(source, formats) as file:
        return turned(*_stored(file, max_pixels, None))


def read_image(path: Path, size: tuple[int, int]) -> tuple[Image.Image, str]:
    """The image as of `open_image`, of exactly `size` = (width, height), and the SHA-256 of the file.

    Raises ImageError, which does not name the file.
    """
    if not path.is_file():
        raise ImageError("there is no such file")
    try:
        if (length := path.stat().st_size) > MAX_BYTES:
            raise ImageError(f"it has {length} bytes; more than {MAX_BYTES} are not read")
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"it can't be read: {error.strerror}") from error
    return open_image(data, size=size), bytes_digest(data)


def stored_orientation(source: bytes | Path) -> int:
    """EXIF's orientation of a file's pixels, from 1 (upright) to 8: see `turned`. Raises ImageError."""
    with _opened(source, FORMATS) as image:
        return orientation_of(image)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright image, from the header. Raises ImageError, which does not name the file."""
    with _opened(path, FORMATS) as image:
        return _upright_size(image)


def write_png(image: Image.Image, path: Path, *, writer: str | None = None) -> str:
    """Writes `image` to `path` and returns the SHA-256 of the file. writer: see `editar.io.atomic.replacing`.

    Whenever the process dies, `path` is the whole image or not there. It isn't forced to the disk, which would cost
    more than making a small image: should the machine die, `is_whole_png` and the digest tell what is lost.
    Raises WriteError.
    """
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue(), writer=writer)
    return bytes_digest(buffer.getvalue())


def is_whole_png(path: Path) -> bool:
    """Whether the file is there with its end: a cheap look that finds what was cut off or never reached the disk."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), os.SEEK_END)
            return file.read() == _PNG_END
    except OSError:  # absent, or shorter than that
        return False


@contextmanager
def _opened(source: bytes | Path, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """The image with its header read."""
    # Some PNG files of MultiGen-20M carry long texts; both published evaluations raise Pillow's limit for them.
    PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, MAX_BYTES)
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=tuple(formats))
        with image:
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"refused, more than {MAX_PIXELS} pixels; make it smaller") from error
    except Exception as error:  # Pillow raises many kinds (OSError, SyntaxError, struct.error ...) on a damaged file
        if what := _what_it_is(source):
            raise ImageError(f"it can't be read as an image, {what}") from error
        kinds = f"the formats are {', '.join(formats)}"
        raise ImageError(f"it can't be read as an image ({type(error).__name__}: {error}); {kinds}") from error


def _what_it_is(source: bytes | Path) -> str | None:
    try:
        return what_begins(source) if isinstance(source, bytes) else what_it_is(source)
    except OSError:
        return None


def _stored(image: Image.Image, max_pixels: int, size: tuple[int, int] | None) -> tuple[Image.Image, int]:
    """The pixels as they lie in the file, and EXIF's orientation."""
    if image.width * image.height > max_pixels:
        raise ImageError(f"it has {_text(image.size)} pixels; more than {max_pixels} are refused")
    if size is not None and image.size != size and (image.size != size[::-1] or _upright_size(image) != size):
        raise ImageError(f"it is {_text(image.size)} pixels, not {_text(size)}")
    orientation = orientation_of(image)
    return _scaled(image), orientation


def _upright_size(image: Image.Image) -> tuple[int, int]:
    if image.width == image.height:  # to find EXIF data in a PNG file, Pillow decodes it
        return image.size
    return image.size[::-1] if orientation_of(image) >= 5 else image.size


def _scaled(image: Image.Image) -> Image.Image:
    """The pixels, those of 12 and 16 bits on the whole scale of 16."""
    if image.format == "PPM" and image.mode == "I":  # 16 bits, which Pillow has stretched already
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.format == "TIFF" and image.mode in SIXTEEN_BITS:
        tags = image.tag_v2  # type: ignore[attr-defined]
        values = np.asarray(image).astype(np.uint16) << (16 - tags.get(_BITS, (16,))[0])
        return Image.fromarray(~values if tags.get(_PHOTOMETRIC) == 0 else values)  # 0: white is zero
    return image.copy()


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
