"""Image sheets: which samples, what stands where, what is said where there is no picture."""

import io

import numpy as np
import pytest
from PIL import Image

from reports.sheets.sheet import GAP, LARGEST, SMALLEST, SheetRow, draw_sheet, spread
from tests.sheets import column, tops


def picture(seed: int, side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_the_samples_are_at_equal_distances() -> None:
    assert spread(range(70), 5) == [7, 21, 35, 49, 63]
    assert spread("abcdefgh", 2) == ["c", "g"]
    assert spread([1, 2, 3], 3) == spread([1, 2, 3], 8) == [1, 2, 3]
    assert spread([], 3) == []


def test_every_picture_stands_in_its_row_and_column() -> None:
    cells = [[picture(3 * row + column) for column in range(3)] for row in range(2)]
    rows = [SheetRow(caption=f"sample {row}", cells=tuple(cells[row])) for row in range(2)]
    sheet = draw_sheet("A title", ["map", "first", "second"], rows)
    found = [[tops(sheet, c, cells[r][c]) for c in range(3)] for r in range(2)]
    assert all(len(places) == 1 for row in found for places in row)
    assert len({tuple(place) for place in found[0]}) == len({tuple(place) for place in found[1]}) == 1
    assert found[0][0][0] + 128 < found[1][0][0]
    assert sheet.mode == "RGB" and sheet.width == GAP + 3 * (128 + GAP)


@pytest.mark.parametrize(("side", "shown"), [(8, 128), (60, 180), (64, 128), (128, 128), (200, 200), (512, 256)])
def test_small_pictures_are_enlarged_by_whole_numbers_and_large_ones_shrunk(side: int, shown: int) -> None:
    sheet = draw_sheet("", ["a"], [SheetRow(caption="", cells=(picture(0, side),))])
    assert sheet.width == shown + 2 * GAP and SMALLEST <= shown <= LARGEST
    method = Image.Resampling.NEAREST if shown >= side else Image.Resampling.LANCZOS
    assert len(tops(sheet, 0, picture(0, side).resize((shown, shown), method), shown)) == 1


def test_a_missing_picture_is_an_empty_frame_with_its_reason() -> None:
    def drawn(reason: str) -> np.ndarray:
        rows = [
            SheetRow(caption="a", cells=(picture(0), reason)),
            SheetRow(caption="b", cells=(picture(1), picture(2))),
        ]
        return column(draw_sheet("t", ["map", "method"], rows), 1, 128)

    with_reason, without = drawn("OutOfMemory: 80 GB were not enough"), drawn("")
    framed = [row for row in range(len(without)) if (without[row] < 255).all()]
    assert len(framed) >= 2 and framed[1] - framed[0] == 127  # upper and lower edge, from side to side
    inside = (slice(framed[0] + 1, framed[1]), slice(1, 127))
    assert (without[inside] == 255).all() and (with_reason[inside] < 200).any()
    with_reason[inside] = 255
    assert np.array_equal(with_reason, without)
    assert not np.array_equal(drawn("OutOfMemory"), drawn("NoAnswer"))


def test_texts_differ_and_never_leave_their_place() -> None:
    def drawn(title: str = "t", header: str = "h", caption: str = "c", reason: str = "r") -> np.ndarray:
        rows = [SheetRow(caption=caption, cells=(picture(0), reason))]
        return np.asarray(draw_sheet(title, ["map", header], rows))

    plain = drawn()
    for text in ({"title": "u"}, {"header": "u"}, {"caption": "u"}, {"reason": "u"}):
        assert not np.array_equal(drawn(**text), plain)
    long = "a word and another " * 200 + "x" * 3000
    for text in ({"title": long}, {"header": long}, {"caption": long}, {"reason": long}, {"reason": "x" * 3000}):
        sheet = drawn(**text)
        assert sheet.shape[1] == plain.shape[1] and sheet.shape[0] <= plain.shape[0] + 64
        inner = sheet[:-GAP, GAP - 1 : -GAP]  # a letter may stand out by a pixel
        assert (inner < 255).sum() == (sheet < 255).sum()
    assert np.array_equal(drawn(caption="two\n words\x00"), drawn(caption="two words"))


def test_the_same_pictures_give_the_same_bytes() -> None:
    files = []
    for _ in range(2):
        file = io.BytesIO()
        draw_sheet("t", ["a", "b"], [SheetRow(caption="c", cells=(picture(0), "no"))]).save(file, format="PNG")
        files.append(file.getvalue())
    assert files[0] == files[1]


def test_a_sheet_without_samples_has_its_headers() -> None:
    sheet = np.asarray(draw_sheet("nothing", ["a", "b"], []))
    assert (sheet < 100).any()
