"""Where in an image sheet a picture stands, pixel by pixel."""

import numpy as np
from PIL import Image

from reports.sheets.sheet import GAP


def column(sheet: Image.Image, number: int, side: int) -> np.ndarray:
    """A column of the sheet (height, side, 3)."""
    left = GAP + number * (side + GAP)
    return np.array(sheet)[:, left : left + side]


def tops(sheet: Image.Image, number: int, picture: Image.Image, side: int = 128) -> list[int]:
    """The picture's places in a column, enlarged to `side` as a sheet enlarges small ones."""
    pixels = np.asarray(picture.resize((side, side), Image.Resampling.NEAREST))
    strip = column(sheet, number, side)
    return [top for top in range(len(strip) - side) if np.array_equal(strip[top : top + side], pixels)]
