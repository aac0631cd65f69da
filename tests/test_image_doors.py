"""Image files of every mode and format, through every door that reads images: the same pixels come in everywhere.

The references are formulas on arrays, or Pillow's own conversions where these define the colours.
"""

import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from baselines.method import EditRequest, NoAnswer
from benchmarks.datasets.finished_images import FinishedImages
from benchmarks.datasets.hub import MULTIGEN_DEPTH
from benchmarks.datasets.piebench import read_piebench
from benchmarks.datasets.translation import read_translation
from editar.images import open_image
from editar.training.data.jsonl import find_lines, read_lines
from editar.training.data.parquet import find_local, read_tables
from editar.training.data.rows import Prepare
from metrics.protocols.fid import prepared_batches
from tests.benchmarks.tiny import entry, write_mapping
from tests.benchmarks.tiny_translation import COLUMNS, write_shards

SIDE = 32
ORIENTATION = 0x0112
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ALPHA = RNG.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
DEEP = GREY.astype(np.uint16) * 257  # 16 bits, of which the 8 of GREY are the twin
PICTURE = Image.fromarray(RGB)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, -1)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.round(colours * share + 255 * (1 - share)).astype(np.uint8)


def as_pillow(image: Image.Image, kind: str, **options: Any) -> tuple[str, bytes, np.ndarray]:
    data = encoded(image, kind, **options)
    return kind, data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def transparent(mode: str, kind: str) -> tuple[str, bytes, np.ndarray, np.ndarray]:
    """And how it looks where transparency is dropped."""
    image = PICTURE.convert(mode)
    image.putalpha(Image.fromarray(ALPHA))
    colours = np.asarray(image)[..., :-1]
    colours = grey(colours[..., 0]) if mode == "LA" else colours
    return (
        kind,
        encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})),
        on_white(colours, ALPHA),
        colours,
    )


def transparent_palette() -> tuple[str, bytes, np.ndarray, np.ndarray]:
    image = PICTURE.quantize(16)
    clear = np.asarray(image) == 3
    colours = np.asarray(image.convert("RGB"))
    return "PNG", encoded(image, "PNG", transparency=3), np.where(clear[..., None], 255, colours), colours


def turned(kind: str, orientation: int) -> tuple[str, bytes, np.ndarray]:
    exif = PICTURE.getexif()
    exif[ORIENTATION] = orientation
    data = encoded(PICTURE, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    stored = RGB if kind != "JPEG" else np.asarray(Image.open(io.BytesIO(data)))
    upright = {
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).swapaxes(0, 1),
        8: np.rot90(stored),
    }
    return kind, data, upright[orientation]


def big_endian() -> Image.Image:
    return Image.frombytes("I;16B", (SIDE, SIDE), DEEP.astype(">u2").tobytes())


def tiff(values: np.ndarray, bits: int, photometric: int) -> bytes:
    """An uncompressed grey TIFF of any depth; Pillow writes few."""
    size = [(256, 4, SIDE), (257, 4, SIDE), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
            (277, 3, 1), (278, 4, SIDE), (279, 4, len(values.tobytes()))]  # fmt: skip
    data = values.tobytes()
    tags = b"".join(
        np.array([tag, kind], "<u2").tobytes() + np.array([1, value], "<u4").tobytes() for tag, kind, value in size
    )
    start = 8 + len(data)
    return b"II*\0" + np.array(start, "<u4").tobytes() + data + np.array(len(size), "<u2").tobytes() + tags + b"\0" * 4


def twelve_bits() -> bytes:
    """Two pixels in three bytes."""
    values = DEEP >> 4
    first, second = values.reshape(-1, 2).T.astype(np.uint16)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)
    return tiff(packed, 12, 1)


# What each file holds, its pixels as RGB, and these where transparency is dropped, if there is some.
CASES: dict[str, tuple[Any, ...]] = {
    "1 png": as_pillow(PICTURE.convert("1"), "PNG"),
    "1 tiff": as_pillow(PICTURE.convert("1"), "TIFF"),
    "L png": ("PNG", encoded(Image.fromarray(GREY), "PNG"), grey(GREY)),
    "L jpeg": as_pillow(Image.fromarray(GREY), "JPEG"),
    "LA png": transparent("LA", "PNG"),
    "LA tiff": transparent("LA", "TIFF"),
    "P png": as_pillow(PICTURE.quantize(16), "PNG"),
    "P gif": as_pillow(PICTURE.quantize(16), "GIF"),
    "P transparent png": transparent_palette(),
    "PA tiff": as_pillow(PICTURE.quantize(16).convert("PA"), "TIFF"),
    "RGB png": ("PNG", encoded(PICTURE, "PNG"), RGB),
    "RGB jpeg": as_pillow(PICTURE, "JPEG"),
    "RGB webp": as_pillow(PICTURE, "WEBP"),
    "RGB lossless webp": ("WEBP", encoded(PICTURE, "WEBP", lossless=True), RGB),
    "RGB bmp": ("BMP", encoded(PICTURE, "BMP"), RGB),
    "RGB tiff": ("TIFF", encoded(PICTURE, "TIFF"), RGB),
    "RGB ppm": ("PPM", encoded(PICTURE, "PPM"), RGB),
    "RGB jpeg 2000": as_pillow(PICTURE, "JPEG2000"),
    "RGBA png": transparent("RGBA", "PNG"),
    "RGBA webp": transparent("RGBA", "WEBP"),
    "RGBA tiff": transparent("RGBA", "TIFF"),
    "CMYK jpeg": as_pillow(PICTURE.convert("CMYK"), "JPEG"),
    "CMYK tiff": as_pillow(PICTURE.convert("CMYK"), "TIFF"),
    "YCbCr jpeg": as_pillow(PICTURE.convert("YCbCr"), "JPEG"),
    "YCbCr tiff": as_pillow(PICTURE.convert("YCbCr"), "TIFF"),
    "LAB tiff": as_pillow(Image.frombytes("LAB", (SIDE, SIDE), RGB.tobytes()), "TIFF"),
    "I;16 png": ("PNG", encoded(Image.fromarray(DEEP), "PNG"), grey(GREY)),
    "I;16 tiff": ("TIFF", encoded(Image.fromarray(DEEP), "TIFF"), grey(GREY)),
    "I;16B tiff": ("TIFF", encoded(big_endian(), "TIFF"), grey(GREY)),
    "I;16 jpeg 2000": ("JPEG2000", encoded(Image.fromarray(DEEP), "JPEG2000"), grey(GREY)),
    "I ppm": ("PPM", encoded(Image.fromarray(DEEP), "PPM"), grey(GREY)),
    "12-bit tiff": ("TIFF", twelve_bits(), grey(GREY)),
    "16-bit tiff, white is zero": ("TIFF", tiff(0xFFFF - DEEP, 16, 0), grey(GREY)),
    "the first frame of a gif": (
        "GIF",
        encoded(PICTURE.quantize(16), "GIF", save_all=True, append_images=[Image.new("P", (SIDE, SIDE))]),
        np.asarray(PICTURE.quantize(16).convert("RGB")),
    ),
    **{f"jpeg of orientation {each}": turned("JPEG", each) for each in range(2, 9)},
    **{f"{kind} of orientation 6": turned(kind, 6) for kind in ("PNG", "WEBP", "TIFF")},
}  # fmt: skip
REFUSED = {
    "I tiff": ("TIFF", encoded(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), "32-bit integers"),
    "F tiff": ("TIFF", encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floating-point numbers"),
    "git lfs": ("PNG", b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "a pointer of Git LFS"),
    "html": ("JPEG", b"<!doctype html><title>Sign in</title>", "an HTML page"),
    "too long": ("PNG", encoded(Image.new("L", (2_000_000, 1)), "PNG"), "2000000x1 pixels"),
    "eps": ("EPS", encoded(PICTURE, "EPS"), "can't be read as an image"),
}
SUFFIX = {"JPEG": ".JPG", "PNG": ".png", "WEBP": ".webp", "GIF": ".GIF", "BMP": ".bmp", "TIFF": ".tif", "PPM": ".ppm",
          "JPEG2000": ".jp2", "EPS": ".png"}  # fmt: skip

Files = Mapping[str, bytes]  # by name, with a suffix
Pixels = dict[str, np.ndarray]  # by the same names


def written(files: Files, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def edited(files: Files, folder: Path) -> Pixels:
    """What `edit` and `translate` open; test_command_line.py tests that their results follow."""
    return {name: np.asarray(open_image(written(files, folder) / name)) for name in files}


def finished(files: Files, folder: Path) -> Pixels:
    request = partial(
        EditRequest, image=PICTURE, instruction="", source_prompt="", target_prompt="", blend_words=None, seed=0
    )
    names = {name.replace(" ", "_"): name for name in files}
    images = FinishedImages(written(files, folder), names, SIDE)
    images.require(names)
    made = images.edit([request(sample_id=sample_id) for sample_id in names])
    for image in made:
        if isinstance(image, NoAnswer):
            raise image
    return dict(zip(files, map(np.asarray, made), strict=True))


def pie_bench(files: Files, folder: Path) -> Pixels:
    written(files, folder / "annotation_images")
    write_mapping(folder, {f"{number:03d}": entry(number, image_path=name) for number, name in enumerate(files)})
    records = read_piebench(folder, SIDE).records
    return {record.image_name: np.asarray(record.image()) for record in records}


def parquet(files: Files, folder: Path) -> Pixels:
    rows = [
        {name: {"bytes": data, "path": None} for name in ("image", "control_depth")} | {"text": "a text"}
        for data in files.values()
    ]
    dataset = read_translation(MULTIGEN_DEPTH, write_shards(folder, "depth", rows, shards=1), "depth")
    found = [dataset.row(record) for record in dataset.records]
    assert all(np.array_equal(np.asarray(row.image()), np.asarray(row.condition())) for row in found)
    return {name: np.asarray(row.image()) for name, row in zip(files, found, strict=True)}


def trained(rows: list[dict[str, Any]]) -> list[np.ndarray]:
    examples = [Prepare(side=SIDE)({**row, "draw": 0}) for row in rows]
    assert all(np.array_equal(example.source, example.target) for example in examples)
    return [example.target.permute(1, 2, 0).numpy() for example in examples]


def pairs(files: Files, folder: Path) -> Pixels:
    lines = [json.dumps({"source": name, "target": name, "instruction": "make it red"}) for name in files]
    (written(files, folder) / "pairs.jsonl").write_text("\n".join(lines))
    return dict(zip(files, trained(list(read_lines(find_lines("pairs", folder)))), strict=True))


def training_parquet(files: Files, folder: Path) -> Pixels:
    rows = [
        {name: {"bytes": data, "path": None} for name in ("image", "control_depth")} | {"text": "a text"}
        for data in files.values()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(list(COLUMNS["depth"].items()))
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "train-00000-of-00001.parquet")
    return dict(zip(files, trained(list(read_tables(find_local("depth", folder)))), strict=True))


class Prepared:
    """What reading for FID needs of a network."""

    batch = 4

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image)


def fid(files: Files, folder: Path) -> Pixels:
    paths = [written(files, folder) / name for name in files]
    batches = prepared_batches(paths, Prepared(), workers=0)  # type: ignore[arg-type]
    return dict(zip(files, (each.numpy() for batch in batches for each in batch), strict=True))


DOORS: dict[str, Callable[[Files, Path], Pixels]] = {
    each.__name__: each for each in (edited, finished, pie_bench, parquet, pairs, training_parquet, fid)
}
DROPPING = (parquet, fid)  # transparency, as the published evaluations do


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pixels]:
    """All cases through one door, by case."""
    known: dict[str, Pixels] = {}

    def find(door: str) -> Pixels:
        if door not in known:
            names = {case: case.replace(" ", "_") + SUFFIX[kind] for case, (kind, *_) in CASES.items()}
            files = {names[case]: data for case, (_, data, *_) in CASES.items()}
            made = DOORS[door](files, tmp_path_factory.mktemp(door))
            known[door] = {case: made[name] for case, name in names.items()}
        return known[door]

    return find


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", CASES)
def test_every_door_reads_every_file_alike(through: Callable[[str], Pixels], door: str, case: str) -> None:
    _, _, pixels, *dropped = CASES[case]
    if dropped and DOORS[door] in DROPPING:
        pixels = dropped[0]
    found = through(door)[case].astype(int)
    assert found.shape == pixels.shape
    assert abs(found - pixels).max() <= (1 if dropped else 0)  # compositing may round to either side


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_no_rule_is_for_is_refused_by_name(door: str, case: str, tmp_path: Path) -> None:
    kind, data, reason = REFUSED[case]
    with pytest.raises((ValueError, NoAnswer), match=reason):
        DOORS[door]({f"a{SUFFIX[kind]}": data}, tmp_path)
