"""Images on disk: read with every check, written so that no half of one is ever seen."""

import io
import os
import warnings
from pathlib import Path

from PIL import Image

from editar.io.atomic import write_bytes
from editar.io.digests import bytes_digest

# Decoders of plain raster formats only: others start programs (EPS) or are seldom fuzzed.
FORMATS = ("JPEG", "PNG", "WEBP")
MAX_BYTES = 64 * 2**20

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of every PNG file: its length, name and checksum


class ImageError(ValueError):
    """What is wrong with an image file, without its path."""


def read_image(path: Path, size: tuple[int, int]) -> tuple[Image.Image, str]:
    """The RGB image (transparency on white) of exactly `size` = (width, height), and the SHA-256 of the file.

    The size is compared from the header, before anything is decoded: a decompression bomb is refused unopened.
    Raises ImageError.
    """
    if not path.is_file():
        raise ImageError("there is no such file")
    try:
        if (length := path.stat().st_size) > MAX_BYTES:
            raise ImageError(f"it has {length} bytes; more than {MAX_BYTES} are not read")
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.size != size:
                    raise ImageError(f"it is {_text(image.size)} pixels, not {_text(size)}")
                return to_rgb(image), bytes_digest(data)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises many kinds (OSError, SyntaxError, struct.error ...) on a damaged file
        raise ImageError(f"it can't be read as an image ({type(error).__name__}: {error})") from error


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header. Raises ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return image.size
    except Exception as error:
        raise ImageError(f"it can't be read as an image ({type(error).__name__}: {error})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
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


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
