"""Image sheets: a grid of pictures, a row for each sample and a column for each input and method, text under the rows.

Texts are set in the font that Pillow brings along: the same pictures give the same bytes wherever Pillow is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont

from reports.markup import one_line

SMALLEST, LARGEST = 128, 256  # pixels along a cell's side: smaller pictures are enlarged, larger ones shrunk
GAP = 6
SIZE = 12  # of the font
LINE = 16
TITLE_LINES, HEADER_LINES, CAPTION_LINES = 2, 2, 3
INK, FAINT, PAPER = (20, 20, 20), (130, 130, 130), (255, 255, 255)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """cells: for each column a square RGB picture, all of one size, or why there is none. caption: printed below."""

    caption: str
    cells: tuple[Image.Image | str, ...]


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, the middle ones of as many equal parts; all where there are no more. Nobody picks them."""
    count = min(count, len(items))
    return [items[(2 * part + 1) * len(items) // (2 * count)] for part in range(count)]


def draw_sheet(title: str, headers: Sequence[str], rows: Sequence[SheetRow]) -> Image.Image:
    """The sheet, RGB. Texts that don't fit are cut and end in dots."""
    font = ImageFont.load_default(size=SIZE)
    side = _shown_side([cell for row in rows for cell in row.cells if isinstance(cell, Image.Image)])
    width = GAP + len(headers) * (side + GAP)
    titles = _lines(title, font, width - 2 * GAP, TITLE_LINES)
    heads = [_lines(header, font, side, HEADER_LINES) for header in headers]
    captions = [_lines(row.caption, font, width - 2 * GAP, CAPTION_LINES) for row in rows]
    head_lines = max(map(len, heads))
    height = GAP + LINE * len(titles) + GAP + LINE * head_lines + GAP
    height += sum(side + LINE * len(caption) + 2 * GAP for caption in captions)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _write(draw, titles, font, GAP, GAP, INK) + GAP
    for column, head in enumerate(heads):  # their last lines stand in one line
        _write(draw, head, font, GAP + column * (side + GAP), top + LINE * (head_lines - len(head)), INK)
    top += LINE * head_lines + GAP
    for row, caption in zip(rows, captions, strict=True):
        for column, cell in enumerate(row.cells):
            left = GAP + column * (side + GAP)
            if isinstance(cell, Image.Image):
                sheet.paste(_resized(cell, side), (left, top))
            else:
                draw.rectangle((left, top, left + side - 1, top + side - 1), outline=FAINT)
                reason = _lines(cell, font, side - 2 * GAP, side // LINE - 1)
                _write(draw, reason, font, left + GAP, top + GAP, FAINT)
        top = _write(draw, caption, font, GAP, top + side + 2, INK) + 2 * GAP - 2
    return sheet


def _shown_side(pictures: Sequence[Image.Image]) -> int:
    """Small pictures are enlarged by a whole number, so that every pixel stays a square."""
    side = max((picture.width for picture in pictures), default=SMALLEST)
    return min(side * -(-SMALLEST // side), LARGEST)


def _resized(picture: Image.Image, side: int) -> Image.Image:
    enlarged = side >= picture.width
    return picture.resize((side, side), Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)


def _write(
    draw: ImageDraw.ImageDraw,
    lines: Sequence[str],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    left: int,
    top: int,
    colour: tuple[int, int, int],
) -> int:
    """Returns where the next line would begin."""
    for line in lines:
        draw.text((left, top), line, colour, font)
        top += LINE
    return top


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, most: int) -> list[str]:
    """`text` in at most `most` lines of at most `width` pixels, broken between words where that is possible."""
    rest = one_line(text)
    lines: list[str] = []
    while rest and len(lines) < most:
        end = 1
        while end < len(rest) and font.getlength(rest[: end + 1]) <= width:
            end += 1
        if end < len(rest):
            end = rest.rfind(" ", 1, end + 1) if " " in rest[1 : end + 1] else end
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    if rest:
        lines[-1] = lines[-1][:-3] + "..."
    return lines
