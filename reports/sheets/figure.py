"""Figures for a paper: the sheets of samples that somebody chose, as PNG and as PDF, in the width of a page.

Pictures go in pixel by pixel, small ones enlarged by whole numbers; in the PDF the texts stay text.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageFont

from editar.io.atomic import write_bytes
from reports.sheets.sheet import FAINT, INK, Layout, Look, SheetBlock, SheetRow, enlarged, lay_out, paint

POINTS_PER_INCH = 72
WIDTH = 7.0 * POINTS_PER_INCH  # of the text of a page of two columns
LARGEST_SIDE = 108.0  # points: a figure of few columns is narrower than the page
GAP, SIZE, LINE = 3.0, 7.0, 8.5  # points
MEASURED = 16  # times the size, in which texts are measured: fonts are laid out in whole pixels


def write_figure(blocks: Sequence[SheetBlock], path: Path) -> list[Path]:
    """Writes `path` with the suffixes .png and .pdf; returns both. The same pictures give the same bytes."""
    columns = max(len(block.headers) for block in blocks)
    side = min((WIDTH - GAP) / columns - GAP, LARGEST_SIDE)
    look = Look(side=side, gap=GAP, size=SIZE, line=LINE)
    prepared = [_prepared(block) for block in blocks]
    layout = lay_out("", prepared, look, ImageFont.load_default(size=SIZE * MEASURED), MEASURED)
    pixels = max((cell.picture.width for cell in layout.cells if cell.picture), default=round(4 * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    png, pdf = BytesIO(), BytesIO()
    dots = pixels / side * POINTS_PER_INCH
    paint(layout, pixels / side).save(png, format="PNG", dpi=(dots, dots))
    _write_pdf(layout, pdf)
    return [write_bytes(path.with_suffix(kind), file.getvalue()) for kind, file in ((".png", png), (".pdf", pdf))]


def _prepared(block: SheetBlock) -> SheetBlock:
    def cells(row: SheetRow) -> tuple[Image.Image | str, ...]:
        return tuple(enlarged(cell) if isinstance(cell, Image.Image) else cell for cell in row.cells)

    return replace(block, rows=[replace(row, cells=cells(row)) for row in block.rows])


def _write_pdf(layout: Layout, file: BytesIO) -> None:
    import matplotlib
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Rectangle

    side = layout.look.side
    font = ImageFont.load_default(size=SIZE * MEASURED)
    assert isinstance(font, ImageFont.FreeTypeFont)
    above = font.getmetrics()[0] / MEASURED  # points from the top of a line to where its letters stand
    figure = Figure(figsize=(layout.width / POINTS_PER_INCH, layout.height / POINTS_PER_INCH))
    canvas = FigureCanvasPdf(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, layout.width), ylim=(layout.height, 0))
    axes.set_axis_off()
    for cell in layout.cells:
        if cell.picture is None:
            frame = Rectangle((cell.left, cell.top), side, side, fill=False, linewidth=0.4, edgecolor=_colour(FAINT))
            axes.add_patch(frame)
        else:
            extent = (cell.left, cell.left + side, cell.top + side, cell.top)
            axes.imshow(cell.picture, extent=extent, interpolation="none", aspect="auto")
    axes.set(xlim=(0, layout.width), ylim=(layout.height, 0))  # imshow has moved them
    with tempfile.TemporaryDirectory() as folder:
        font_file = Path(folder) / "font.ttf"
        font_file.write_bytes(font.font_bytes)
        for text in layout.texts:
            axes.text(
                text.left,
                text.top + above,
                text.text,
                color=_colour(FAINT if text.faint else INK),
                fontproperties=FontProperties(fname=font_file, size=SIZE),
                va="baseline",
                parse_math=False,
            )
        with matplotlib.rc_context({"pdf.fonttype": 42, "pdf.compression": 9}):
            canvas.print_pdf(file, metadata={"CreationDate": None, "Producer": None, "Creator": "EditAR Bench"})


def _colour(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    return rgb[0] / 255, rgb[1] / 255, rgb[2] / 255
