"""Where on a sheet its pictures and texts stand: a row for each sample, a column for each input and method.

Lengths are in the sheet's own unit, pixels of an image or points of a page. Texts that don't fit are cut and end in
dots; they are measured in the font that Pillow brings along.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageFont

from reports.tables.escape import one_line

TITLE_LINES, HEADER_LINES, CAPTION_LINES = 2, 2, 3

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


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
                if isinstance(cell, Image.Image):
                    layout.cells.append(Cell(picture=cell, left=left, top=top))
                else:
                    layout.cells.append(Cell(picture=None, left=left, top=top))
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
