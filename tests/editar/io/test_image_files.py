"""One decoder with every check, for all who read images."""

import io
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editar.io.image_files import (
    ImageError,
    decode_image,
    image_size,
    open_image,
    read_image,
    to_rgb,
    write_png,
)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_bytes_and_files_are_decoded_in_their_own_mode(tmp_path: Path) -> None:
    image = Image.radial_gradient("L").resize((6, 4))
    (tmp_path / "a.png").write_bytes(encoded(image))
    for source in (tmp_path / "a.png", encoded(image)):
        decoded = decode_image(source)
        assert decoded.mode == "L" and np.array_equal(np.asarray(decoded), np.asarray(image))
    assert image_size(tmp_path / "a.png") == (6, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pixels": 23}, "6x4 pixels; more than 23"),
        ({"size": (4, 6)}, "6x4 pixels, not 4x6"),
        ({"formats": ("JPEG",)}, "the formats are JPEG"),
    ],
)
def test_what_the_caller_does_not_accept_is_refused(options, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_image(encoded(Image.new("L", (6, 4))), **options)


def test_a_damaged_file_is_refused() -> None:
    for data in (b"", b"text", encoded(Image.effect_noise((64, 64), 50))[:-200]):
        with pytest.raises(ImageError):
            decode_image(data)


def test_upright_as_the_exif_data_say() -> None:
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6
    data = encoded(image, "JPEG", exif=exif)
    assert open_image(data).size == decode_image(data).size == (10, 20)
    assert open_image(data, size=(10, 20)).size == (10, 20)
    with pytest.raises(ImageError, match="20x10 pixels, not 20x11"):
        open_image(data, size=(20, 11))


def test_long_texts_in_png_files_are_no_obstacle() -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("prompt", "x" * 2**21, zip=True)
    assert decode_image(encoded(Image.new("L", (2, 2)), pnginfo=text)).size == (2, 2)


def test_transparency_is_put_on_white() -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_a_file_is_read_with_its_digest_and_only_at_its_size(tmp_path: Path) -> None:
    digest = write_png(Image.new("RGB", (6, 4), "red"), tmp_path / "a.png")
    image, found = read_image(tmp_path / "a.png", (6, 4))
    assert image.getpixel((0, 0)) == (255, 0, 0) and found == digest
    with pytest.raises(ImageError, match="not 4x6"):
        read_image(tmp_path / "a.png", (4, 6))
    with pytest.raises(ImageError):
        read_image(tmp_path / "b.png", (6, 4))


def test_decoding_in_threads_leaves_the_filters_of_warnings_alone() -> None:
    before, data = list(warnings.filters), encoded(Image.new("L", (8, 8)))
    threads = [threading.Thread(target=lambda: [decode_image(data) for _ in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
