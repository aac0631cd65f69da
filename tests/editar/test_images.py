import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from editar.images import ImageError, open_image, square, to_image, to_rgb, to_tensor
from editar.io import image_files


def test_long_images_are_refused_before_they_grow() -> None:
    with pytest.raises(ImageError, match="100:1"):
        square(Image.new("L", (2_000_000, 1)), 512)
    with pytest.raises(ImageError, match=r"102400x1024 pixels"):
        square(Image.new("L", (500, 5)), 1024)
    assert square(Image.new("L", (500, 5)), 32).size == (32, 32)


def test_pixels_survive_the_round_trip():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    tensor = to_tensor(Image.fromarray(pixels), 32)
    assert tensor.shape == (3, 32, 32)
    assert tensor.dtype == torch.float32
    assert tensor.min() >= -1
    assert tensor.max() <= 1
    assert np.array_equal(np.array(to_image(tensor)), pixels)


def test_values_out_of_range_are_clipped():
    assert to_image(torch.full((3, 1, 1), 1.7)).getpixel((0, 0)) == (255, 255, 255)
    assert to_image(torch.full((3, 1, 1), -9.0)).getpixel((0, 0)) == (0, 0, 0)


def test_transparency_becomes_white():
    assert to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    half = to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 128))).getpixel((0, 0))
    assert half == (255, 127, 127)
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([10, 20, 30])
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "mode", ["L", "P", "CMYK", "1", "I;16", "I;16L", "I;16B", "HSV", "LAB", "YCbCr", "La", "RGBa", "RGBX"]
)
def test_other_modes_become_rgb(mode):
    assert to_rgb(Image.new(mode, (4, 4))).mode == "RGB"


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (33, 500), (500, 33), (10, 10), (32, 32)])
def test_every_shape_becomes_square(size):
    assert square(Image.new("RGB", size), 32).size == (32, 32)


def test_the_centre_is_kept():
    image = Image.new("RGB", (96, 32), "blue")
    image.paste("red", (32, 0, 64, 32))
    assert square(image, 32).getcolors() == [(32 * 32, (255, 0, 0))]


def test_the_short_side_is_resized_with_lanczos():
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = np.array(image.resize((32, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(np.array(square(image, 32)), expected)


def test_files_are_opened_upright(tmp_path):
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (10, 20)


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bombs_are_refused(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(ImageError):
        open_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_opened_by_the_caller_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(10_000, 10_000))
    with Image.open(path) as image, pytest.raises(ImageError):
        to_tensor(image, 32)


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(ImageError):
        open_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ImageError):
        open_image(tmp_path / "text.png")
    (tmp_path / "cut.png").write_bytes(png_header(8, 8))
    with pytest.raises(ImageError):
        open_image(tmp_path / "cut.png")


def test_the_limit_is_pillows():
    assert image_files.MAX_PIXELS == Image.MAX_IMAGE_PIXELS
