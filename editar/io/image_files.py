"""Images on disk and in memory: decoded with every check, written whole or not at all."""

import io
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, PngImagePlugin

from editar.io.atomic import write_bytes
from editar.io.digests import bytes_digest

# Decoders of plain raster formats only: others start programs (EPS) or are seldom fuzzed.
FORMATS = ("JPEG", "PNG", "WEBP")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 89_478_485  # Pillow's own limit; Pillow alone only warns up to twice that

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of every PNG file: its length, name and checksum
_WARNINGS = threading.Lock()  # how a process treats warnings is one setting for all of its threads


class ImageError(ValueError):
    """An image that is refused, and why. The message names the file only where `path` says so."""


def decode_image(
    source: bytes | Path,
    *,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int = MAX_PIXELS,
    size: tuple[int, int] | None = None,
    modes: Sequence[str] | None = None,
    upright: bool = False,
) -> Image.Image:
    """The first image of a file, or of the bytes of one, decoded, in its own mode.

    What the header says is checked before anything is decoded, so that decompression bombs are refused unopened:
    max_pixels, the exact `size` (width, height) if given, and Pillow's `modes` if given. upright: turned as its EXIF
    data say. Raises ImageError, which does not name the file.
    """
    with _opened(source, formats) as image:
        if image.width * image.height > max_pixels:
            raise ImageError(f"it has {_text(image.size)} pixels; more than {max_pixels} are refused")
        if size is not None and image.size != size:
            raise ImageError(f"it is {_text(image.size)} pixels, not {_text(size)}")
        if modes is not None and image.mode not in modes:
            raise ImageError(f"it is of Pillow's mode {image.mode!r}; it must have 8 bits a channel")
        return ImageOps.exif_transpose(image) if upright else image.copy()


def read_image(path: Path, size: tuple[int, int]) -> tuple[Image.Image, str]:
    """The RGB image (transparency on white) of exactly `size` = (width, height), and the SHA-256 of the file.

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
    return to_rgb(decode_image(data, size=size)), bytes_digest(data)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header. Raises ImageError, which does not name the file."""
    with _opened(path, FORMATS) as image:
        return image.size


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, with transparency composited on white. Raises ImageError for more than MAX_PIXELS, before decoding.

    >>> to_rgb(Image.new("RGBA", (8, 8), (255, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"refused an image of {_text(image.size)}: more than {MAX_PIXELS} pixels")
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


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
        kinds = f"the formats are {', '.join(formats)}"
        raise ImageError(f"it can't be read as an image ({type(error).__name__}: {error}); {kinds}") from error


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
