"""The pictures of run directories, read with every check, and sheets of them: a row for each sample and a column for
each input and method, text under the rows.

First it is laid out in the sheet's own unit, pixels of an image or points of a page, then painted. Texts that don't fit
are cut and end in dots. They are set in the font that Pillow brings along: the same pictures give the same bytes
wherever Pillow is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from editar.io.digests import bytes_digest
from editar.io.image_files import ImageError, open_image
from reports.runs import Run
from reports.tables.format import one_line

NOT_REACHED = "not made yet"
CHANGED = "the file is gone or isn't the image that was made"
MAX_PIXELS = 4096**2  # nothing that a benchmark makes comes near it
ENLARGED_BELOW = 256  # pixels along a side
TITLE_LINES, HEADER_LINES, CAPTION_LINES = 2, 2, 3

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, kw_only=True)
class SampleView:
    """What a data set says and shows of a sample; labels and titles are the same for all samples of a benchmark.

    texts: by label, first what the methods were asked for. pictures: RGB, by title, first what they were given.
    mask: bool (height, width), True where the edit belongs; None where the benchmark has none.
    """

    texts: Mapping[str, str]
    pictures: Mapping[str, Image.Image]
    mask: np.ndarray | None = None

    @property
    def request(self) -> str:
        return next(iter(self.texts.values()))


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """cells: for each column a square RGB picture, all of one size, or why there is none. caption: printed below."""

    caption: str
    cells: tuple[Image.Image | str, ...]


@dataclass(frozen=True, kw_only=True)
class SheetBlock:
    """Rows below their own headers."""

    headers: Sequence[str]
    rows: Sequence[SheetRow]


@dataclass(frozen=True, kw_only=True)
class Look:
    """side: of a picture. gap: between neighbours. size: of the letters. line: from one line of them to the next."""

    side: float
    gap: float
    size: float
    line: float


@dataclass(frozen=True, kw_only=True)
class Text:
    """One line. left, top: its corner. faint: it stands in the place of a picture."""

    text: str
    left: float
    top: float
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """picture: None for an empty frame. left, top: its corner."""

    picture: Image.Image | None
    left: float
    top: float


@dataclass(kw_only=True)
class Layout:
    look: Look
    width: float
    height: float = 0
    texts: list[Text] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)

    def write(self, lines: Sequence[str], left: float, top: float, faint: bool = False) -> float:
        """Returns where the next line would begin."""
        for line in lines:
            self.texts.append(Text(text=line, left=left, top=top, faint=faint))
            top += self.look.line
        return top


def lay_out(title: str, blocks: Sequence[SheetBlock], look: Look, font: Font, enlarged: float = 1) -> Layout:
    """The title, and the blocks below each other. font: of `enlarged` times the size of the letters, to measure in."""
    side, gap, line = look.side, look.gap, look.line
    columns = max(len(block.headers) for block in blocks)
    layout = Layout(look=look, width=gap + columns * (side + gap))
    inside = (layout.width - 2 * gap) * enlarged
    top = gap
    if title:
        top = layout.write(broken(title, font, inside, TITLE_LINES), gap, gap) + gap
    for block in blocks:
        heads = [broken(header, font, side * enlarged, HEADER_LINES) for header in block.headers]
        head_lines = max(map(len, heads))
        for column, head in enumerate(heads):  # their last lines stand in one line
            layout.write(head, gap + column * (side + gap), top + line * (head_lines - len(head)))
        top += line * head_lines + gap
        for row in block.rows:
            for column, cell in enumerate(row.cells):
                left = gap + column * (side + gap)
                picture = cell if isinstance(cell, Image.Image) else None
                layout.cells.append(Cell(picture=picture, left=left, top=top))
                if isinstance(cell, str):
                    reason = broken(cell, font, (side - 2 * gap) * enlarged, int(side // line) - 1)
                    layout.write(reason, left + gap, top + gap, faint=True)
            caption = broken(row.caption, font, inside, CAPTION_LINES)
            top = layout.write(caption, gap, top + side + gap / 3) + 5 * gap / 3
    layout.height = top
    return layout


def broken(text: str, font: Font, width: float, most: int) -> list[str]:
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


def read_picture(run: Run, sample_id: str) -> Image.Image | str:
    """The picture that a run made of a sample, RGB, or why there is none."""
    if sample_id not in run.attempted.index:
        return NOT_REACHED
    digest, error = (run.attempted.at[sample_id, column] for column in ("image_sha256", "error"))
    if pd.isna(digest):
        return NOT_REACHED if pd.isna(error) else str(error)
    try:
        data = (run.path / "images" / f"{sample_id}.png").read_bytes()
    except OSError:
        return CHANGED
    if bytes_digest(data) != digest:
        return CHANGED
    try:
        return open_image(data, max_pixels=MAX_PIXELS)
    except ImageError as fault:
        return str(fault)


def sheet_block(runs: Mapping[str, Run], samples: Mapping[str, SampleView], *, with_ids: bool = True) -> SheetBlock:
    """Rows of what samples (by id) show and what runs (by header) made of them, above the request and the id."""
    inputs: list[str] = []
    rows = []
    for sample_id, view in samples.items():
        inputs = list(view.pictures)
        made = [read_picture(run, sample_id) for run in runs.values()]
        caption = f"{sample_id}: {view.request}" if with_ids else view.request
        rows.append(SheetRow(caption=caption, cells=(*view.pictures.values(), *made)))
    return SheetBlock(headers=[*inputs, *runs], rows=rows)


def enlarged(picture: Image.Image) -> Image.Image:
    """Small pictures by a whole number, so that every pixel stays a square in whatever shows them; others as they
    are."""
    factor = max(1, -(-ENLARGED_BELOW // picture.width))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
