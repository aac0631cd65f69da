"""Images on disk and in memory: decoded with every check, as upright RGB of 8 bits a channel; written whole or not at
all. The table of every kind of image is in docs/operations.md."""

import io
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

# Decoders of plain raster formats only: those of Pillow's others start programs (EPS) or are seldom fuzzed.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 89_478_485  # Pillow's own limit; Pillow alone only warns up to twice that
MAX_ASPECT = 100  # of the long side to the short one, which images are resized by
ORIENTATION = 0x0112  # EXIF's tag

SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
# Pillow cuts these off at 255 instead of scaling them, and no file says what their white is.
_UNBOUNDED = {"I": "32-bit integers", "F": "floating-point numbers"}
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_TURNS = {  # what makes an image upright, by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_WARNINGS = threading.Lock()  # how a process treats warnings is one setting for all of its threads
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


class ImageError(ValueError):
    """An image that is refused, and why. The message names the file only where `path` says so."""


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
    max_pixels, MAX_ASPECT, and the exact `size` (width, height), of the upright image, if given. on_white: see
    `to_rgb`. Raises ImageError, which does not name the file.
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
    image, _, digest = read_turned(path, size)
    return image, digest


def read_turned(path: Path, size: tuple[int, int]) -> tuple[Image.Image, int, str]:
    """As `read_image`, with EXIF's orientation by which the image was turned before the digest."""
    if not path.is_file():
        raise ImageError("there is no such file")
    try:
        if (length := path.stat().st_size) > MAX_BYTES:
            raise ImageError(f"it has {length} bytes; more than {MAX_BYTES} are not read")
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"it can't be read: {error.strerror}") from error
    return *open_turned(data, size=size), bytes_digest(data)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright image, from the header. Raises ImageError, which does not name the file."""
    with _opened(path, FORMATS) as image:
        return _upright_size(image)


def write_png(image: Image.Image, path: Path, *, writer: str | None = None) -> str:
    """Writes `image` to `path` and returns the SHA-256 of the file. writer: see `editar.io.atomic.replacing`.

    Whenever the process dies, `path` is the whole image or not there. It isn't forced to the disk, which would cost
    more than making a small image: should the machine die, the digest tells what is lost.
    Raises WriteError.
    """
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue(), writer=writer)
    return bytes_digest(buffer.getvalue())


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
    except (ImageError, MemoryError):
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
    check_size(image.size, max_pixels)
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


def to_rgb(image: Image.Image, *, on_white: bool = True) -> Image.Image:
    """RGB of 8 bits a channel, of an image of any of Pillow's modes.

    on_white: transparency is composited on white; False drops it and keeps the colours under it. Of 16 bits the upper
    eight are kept, as Pillow does with 16-bit colours. Raises ImageError as `check_size`, before decoding, and
    for 32-bit integers and floats, whose white is not known.

    >>> to_rgb(Image.new("RGBA", (8, 8), (255, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    >>> to_rgb(Image.fromarray(np.full((8, 8), 100 * 257, np.uint16))).getpixel((0, 0))
    (100, 100, 100)
    """
    check_size(image.size)
    if image.mode in _UNBOUNDED:
        kind = f"{_UNBOUNDED[image.mode]} (Pillow's mode {image.mode!r})"
        raise ImageError(f"its pixels are {kind}, which do not say what white is; save it with 8 or 16 bits a channel")
    if image.mode in SIXTEEN_BITS:
        image = _upper_bits(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if on_white and (image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    rgb = image.convert("RGB")
    rgb.info.pop("transparency", None)  # of the pixels that are left nothing shines through
    return rgb


def check_size(size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> None:
    """Raises ImageError for images that are too large, or so long that they would be once their short side is
    resized."""
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"it has {width}x{height} pixels; more than {max_pixels} are refused")
    if max(size) > MAX_ASPECT * min(size):
        raise ImageError(f"it is of {width}x{height} pixels; sides of more than {MAX_ASPECT}:1 are refused")


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image upright, of one that is stored with one of EXIF's orientations: 1, as it is, to 8."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def turned_along(drawn: Image.Image, size: tuple[int, int], orientation: int) -> Image.Image:
    """A mask or map that was drawn on the file's own pixels of an image, turned like that image, which is of `size`
    when upright; as it is where its own size says that it was drawn on the upright image."""
    if orientation >= 5 and drawn.size == size != size[::-1]:
        return drawn
    return turned(drawn, orientation)


def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1, upright, where the image says none or what it says can't be read."""
    if image.format == "TIFF":  # which Pillow turns itself
        return 1
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises many kinds on damaged EXIF data, without which the pixels are still good
        return 1
    return found if found in _TURNS else 1


def _upper_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):  # PNG names one of the 65 536 greys
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey
