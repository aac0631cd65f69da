"""Image sheets: a grid of pictures, a row for each sample and a column for each input and method, text under the rows.

Texts are set in the font that Pillow brings along: the same pictures give the same bytes wherever Pillow is the same.
"""

from collections.abc import Sequence
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont

from reports.sheets.layout import Layout, Look, SheetBlock, SheetRow, lay_out

SMALLEST, LARGEST = 128, 256  # pixels along a cell's side: smaller pictures are enlarged, larger ones shrunk
GAP = 6
SIZE = 12  # of the font
LINE = 16
INK, FAINT, PAPER = (20, 20, 20), (130, 130, 130), (255, 255, 255)

T = TypeVar("T")


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, the middle ones of as many equal parts; all where there are no more. Nobody picks them."""
    count = min(count, len(items))
    return [items[(2 * part + 1) * len(items) // (2 * count)] for part in range(count)]


def draw_sheet(title: str, headers: Sequence[str], rows: Sequence[SheetRow]) -> Image.Image:
    """The sheet, RGB. Texts that don't fit are cut and end in dots."""
    side = _shown_side([cell for row in rows for cell in row.cells if isinstance(cell, Image.Image)])
    look = Look(side=side, gap=GAP, size=SIZE, line=LINE)
    font = ImageFont.load_default(size=SIZE)
    return paint(lay_out(title, [SheetBlock(headers=headers, rows=rows)], look, font))


def paint(layout: Layout, scale: float = 1) -> Image.Image:
    """The layout as an RGB picture, `scale` pixels to its unit."""

    def pixels(length: float) -> int:
        return round(length * scale)

    font = ImageFont.load_default(size=layout.look.size * scale)
    sheet = Image.new("RGB", (pixels(layout.width), pixels(layout.height)), PAPER)
    draw = ImageDraw.Draw(sheet)
    side = pixels(layout.look.side)
    for cell in layout.cells:
        left, top = pixels(cell.left), pixels(cell.top)
        if cell.picture is None:
            draw.rectangle((left, top, left + side - 1, top + side - 1), outline=FAINT)
        else:
            sheet.paste(resized(cell.picture, side), (left, top))
    for text in layout.texts:
        draw.text((pixels(text.left), pixels(text.top)), text.text, FAINT if text.faint else INK, font)
    return sheet


def resized(picture: Image.Image, side: int) -> Image.Image:
    enlarged = side >= picture.width
    return picture.resize((side, side), Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)


def _shown_side(pictures: Sequence[Image.Image]) -> int:
    """Small pictures are enlarged by a whole number, so that every pixel stays a square."""
    side = max((picture.width for picture in pictures), default=SMALLEST)
    return min(side * -(-SMALLEST // side), LARGEST)
