"""Pixels of every kind as upright RGB of 8 bits a channel. The table of all of them is in docs/operations.md."""

import numpy as np
from PIL import Image

MAX_PIXELS = 89_478_485  # Pillow's own limit; Pillow alone only warns up to twice that
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


class ImageError(ValueError):
    """An image that is refused, and why. The message names the file only where `path` says so."""


def to_rgb(image: Image.Image, *, on_white: bool = True) -> Image.Image:
    """RGB of 8 bits a channel, of an image of any of Pillow's modes.

    on_white: transparency is composited on white; False drops it and keeps the colours under it. Of 16 bits the upper
    eight are kept, as Pillow does with 16-bit colours. Raises ImageError for more than MAX_PIXELS, before decoding, and
    for 32-bit integers and floats, whose white is not known.

    >>> to_rgb(Image.new("RGBA", (8, 8), (255, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    >>> to_rgb(Image.fromarray(np.full((8, 8), 100 * 257, np.uint16))).getpixel((0, 0))
    (100, 100, 100)
    """
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"refused an image of {image.width}x{image.height}: more than {MAX_PIXELS} pixels")
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
