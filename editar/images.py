"""Image files, PIL images and tensors.

Tensors are (B, 3, side, side), RGB float32 in [-1, 1].
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

# Pillow's own limit; Pillow alone would only warn up to twice that.
MAX_PIXELS = 89_478_485


class ImageError(ValueError):
    """An image that is refused; the message names it and says why."""


def open_image(path: str | Path) -> Image.Image:
    """A file as an upright image, decoded; missing, unreadable and oversized files are an ImageError."""
    if not Path(path).is_file():
        raise ImageError(f"{path}: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: refused, more than {MAX_PIXELS} pixels; make it smaller") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path}: not a readable image") from error


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
