"""Image files, PIL images and tensors.

Tensors are (B, 3, side, side), RGB float32 in [-1, 1].
"""

import io
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

# Pillow's own limit; Pillow alone would only warn up to twice that.
MAX_PIXELS = 89_478_485
MAX_PNG_TEXT = 64 * 2**20
# Decoders of raster images only: those of Pillow's others start programs (EPS) or are seldom fuzzed.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SHOWN = 500  # characters of a path that errors show


class ImageError(ValueError):
    """An image that is refused; the message names it and says why."""


def open_image(path: str | Path) -> Image.Image:
    """A file as an upright image, decoded; missing, unreadable and oversized files are an ImageError."""
    try:
        found = Path(path).is_file()
    except OSError as error:  # a name longer than the file system allows
        raise ImageError(f"{str(path)[:SHOWN]}: {error.strerror}") from error
    if not found:
        raise ImageError(f"{str(path)[:SHOWN]}: there is no such file")
    return _decoded(path, str(path), ImageOps.exif_transpose)


def decode_image(data: bytes, name: str) -> Image.Image:
    """The bytes of an image file, decoded as they lie, like the maps that belong to them; `name` is for the error."""
    # Some images of MultiGen-20M carry long PNG texts, which Pillow refuses by default.
    PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, MAX_PNG_TEXT)
    return _decoded(io.BytesIO(data), name, Image.Image.copy)


def _decoded(file: str | Path | io.BytesIO, name: str, load: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                return load(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: refused, more than {MAX_PIXELS} pixels; make it smaller") from error
    except Exception as error:  # Pillow raises many kinds (OSError, SyntaxError, struct.error ...) on a damaged file
        raise ImageError(f"{name}: not a readable image; the formats are {', '.join(FORMATS)}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, with transparency composited on white."""
    if image.width * image.height > MAX_PIXELS:  # nothing is decoded before this check
        raise ImageError(f"refused an image of {image.width}x{image.height}: more than {MAX_PIXELS} pixels")
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, side: int) -> Image.Image:
    """RGB of side x side pixels: the short side resized (Lanczos), the centre kept."""
    image = to_rgb(image)
    short = min(image.size)
    width, height = (max(side, round(length * side / short)) for length in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def to_tensor(image: Image.Image, side: int) -> Tensor:
    """Any PIL image -> (3, side, side) float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.array(square(image, side)))
    return pixels.permute(2, 0, 1).float() / 127.5 - 1


def to_image(tensor_3HW: Tensor) -> Image.Image:
    """(3, H, W) in about [-1, 1] (clipped to it) -> RGB PIL image."""
    pixels = ((tensor_3HW.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def contact_sheet(images: Sequence[Image.Image]) -> Image.Image:
    """Images of one size, in reading order on white, in about as many columns as rows."""
    columns, gap = math.ceil(math.sqrt(len(images))), 8
    width, height = images[0].width + gap, images[0].height + gap
    sheet = Image.new("RGB", (columns * width - gap, -(-len(images) // columns) * height - gap), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet
