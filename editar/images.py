"""Image files, PIL images and tensors.

Tensors are (B, 3, side, side), RGB float32 in [-1, 1].
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from editar.io import image_files
from editar.io.image_files import ImageError, check_size, to_rgb

Fit = Literal["crop", "pad", "stretch"]
SHOWN = 500  # characters of a path that errors show


def open_image(path: str | Path) -> Image.Image:
    """A file's image, upright RGB; missing, unreadable and oversized files are an ImageError."""
    return open_turned(Path(path), str(path))[0]


def open_turned(source: bytes | Path, name: str) -> tuple[Image.Image, int]:
    """The image in a file, or in the bytes of one, upright RGB, and the EXIF orientation by which it was turned.

    name: for the error. Raises ImageError.
    """
    try:
        if isinstance(source, Path) and not source.is_file():
            raise ImageError("there is no such file")
        return image_files.open_turned(source)
    except OSError as error:  # a name longer than the file system allows
        raise ImageError(f"{name[:SHOWN]}: {error.strerror}") from error
    except ImageError as error:
        raise ImageError(f"{name[:SHOWN]}: {error}") from error


def square(image: Image.Image, side: int) -> Image.Image:
    """RGB of side x side pixels: the short side resized (Lanczos), the centre kept. Raises ImageError where there would
    be too many pixels on the way.

    >>> square(Image.new("L", (640, 480)), 256)
    <PIL.Image.Image image mode=RGB size=256x256 at 0x...>
    """
    image = to_rgb(image)
    short = min(image.size)
    width, height = (max(side, round(length * side / short)) for length in image.size)
    check_size((width, height))
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def fitted(image: Image.Image, side: int, fit: Fit = "crop") -> Image.Image:
    """RGB of side x side pixels: "crop" as `square` does it, "pad" the whole image on white, "stretch" both sides.

    >>> fitted(Image.new("RGB", (640, 320), "red"), 64, "pad").getpixel((32, 8))
    (255, 255, 255)
    """
    if fit == "crop":
        return square(image, side)
    image = to_rgb(image)
    left, top, right, bottom = _content(image.size, side) if fit == "pad" else (0, 0, side, side)
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(image.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
    return canvas


def paste_back(result: Image.Image, source: Image.Image, fit: Fit = "crop") -> Image.Image:
    """RGB of the source's size: what was made of `fitted(source, ...)`, resized (Lanczos) and put where it came from.

    >>> paste_back(Image.new("RGB", (64, 64), "red"), Image.new("RGB", (640, 320))).getpixel((100, 100))
    (0, 0, 0)
    """
    side = result.width
    if fit == "pad":
        result = result.crop(_content(source.size, side))
    if fit != "crop":
        return result.resize(source.size, Image.Resampling.LANCZOS)
    short = min(source.size)
    left, top = (round((max(side, round(length * side / short)) - side) // 2 * short / side) for length in source.size)
    whole = to_rgb(source).copy()
    whole.paste(result.resize((short, short), Image.Resampling.LANCZOS), (left, top))
    return whole


def _content(size: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    """Where an image of `size` lies when it is padded to side x side."""
    width, height = (max(1, round(length * side / max(size))) for length in size)
    left, top = (side - width) // 2, (side - height) // 2
    return left, top, left + width, top + height


def to_tensor(image: Image.Image, side: int, fit: Fit = "crop") -> Tensor:
    """Any PIL image -> (3, side, side) float32 in [-1, 1]. fit: see `fitted`.

    >>> tensor = to_tensor(Image.new("RGB", (640, 480), "red"), 64)
    >>> tensor.shape, tensor[:, 0, 0].tolist()
    (torch.Size([3, 64, 64]), [1.0, -1.0, -1.0])
    """
    pixels = torch.from_numpy(np.array(fitted(image, side, fit)))
    return pixels.permute(2, 0, 1).float() / 127.5 - 1


def to_image(tensor_3HW: Tensor) -> Image.Image:
    """(3, H, W) in about [-1, 1] (clipped to it) -> RGB PIL image.

    >>> to_image(torch.zeros(3, 64, 64)).getpixel((0, 0))
    (128, 128, 128)
    """
    pixels = ((tensor_3HW.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def contact_sheet(images: Sequence[Image.Image], columns: int | None = None, gap: int = 8) -> Image.Image:
    """Images of one size, in reading order on white; by default in about as many columns as rows. gap: in pixels.

    >>> contact_sheet([Image.new("RGB", (64, 64))] * 4).size
    (136, 136)
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    width, height = images[0].width + gap, images[0].height + gap
    sheet = Image.new("RGB", (columns * width - gap, -(-len(images) // columns) * height - gap), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet
