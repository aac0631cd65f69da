"""The readers of the translation sets, on parquet files in the hub's schemas."""

import io
import shutil
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

from benchmarks.datasets.faults import DatasetError
from benchmarks.datasets.hub import COCO_STUFF, MULTIGEN_CANNY, MULTIGEN_DEPTH, HubDataset
from benchmarks.datasets.parquet import Rows
from benchmarks.datasets.translation import MAX_FAULTS, TASKS, TranslationDataset, read_translation
from tests.benchmarks.tiny_translation import (
    HEIGHT,
    IMAGE,
    WIDTH,
    ids,
    photo,
    row,
    shard,
    stored,
    write,
    write_shards,
)

SOURCES = {"depth": MULTIGEN_DEPTH, "canny": MULTIGEN_CANNY, "segmentation": COCO_STUFF}
SEGMENTATION = "segmentation"


def read(root: Path, task: str, **options: Any) -> TranslationDataset:
    return read_translation(SOURCES[task], root, task, **options)


def faults(root: Path, task: str, **options: Any) -> list[tuple[str, int | None, str | None, str | None]]:
    """(file name, row group, record, column) of every fault."""
    with pytest.raises(DatasetError) as caught:
        read(root, task, **options)
    for fault in caught.value.faults:
        assert fault.remedy and str(fault) in str(caught.value)
        assert fault.column is None or fault.column in str(fault)
        assert fault.row_group is None or f"row group {fault.row_group}" in str(fault)
    return [(fault.file.name, fault.row_group, fault.record, fault.column) for fault in caught.value.faults]


def message(root: Path, task: str) -> str:
    with pytest.raises(DatasetError) as caught:
        read(root, task)
    return str(caught.value)


@pytest.mark.parametrize("task", TASKS)
def test_rows_come_back_as_they_were_written(tmp_path: Path, task: str) -> None:
    dataset = read(write(tmp_path, task, count=7), task)
    assert [record.sample_id for record in dataset.records] == [f"{number:05d}" for number in range(7)]
    for number, record in enumerate(dataset.records):
        assert (record.caption, record.task, record.size) == (f"picture {number}", task, (WIDTH, HEIGHT))
        each = dataset.row(record)
        assert each.record == record
        assert np.array_equal(np.asarray(each.image()), np.asarray(photo(number)))
        assert each.image().mode == "RGB"
        if task == "depth":
            assert each.condition().tobytes() == photo(1000 + number).convert("L").convert("RGB").tobytes()
        assert (each.ids is not None) == (task == SEGMENTATION) and (each.condition_file is None) == (task == "canny")


def test_labels_come_from_panoptic_seg_map_and_have_ids_0_to_170_and_255(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, SEGMENTATION), SEGMENTATION)
    for number, record in enumerate(dataset.records):
        assert np.array_equal(np.asarray(dataset.row(record).ids), ids(number))
    assert {0, 170, 255} <= set(ids(0).flat)


@pytest.mark.parametrize(
    "type_",
    [pa.list_(pa.list_(pa.int64())), pa.large_list(pa.list_(pa.uint8())), pa.list_(pa.list_(pa.uint8(), WIDTH))],
)
def test_other_integers_and_lists_hold_the_same_labels(tmp_path: Path, type_: pa.DataType) -> None:
    rows = [row(SEGMENTATION, 0)]
    dataset = read(
        write_shards(tmp_path, SEGMENTATION, rows, shards=1, types={"panoptic_seg_map": type_}), SEGMENTATION
    )
    found = dataset.row(dataset.records[0]).ids
    assert found is not None and found.dtype == np.uint8 and np.array_equal(found, ids(0))


def test_a_grey_image_may_hold_the_train_ids(tmp_path: Path) -> None:
    rows = [row(SEGMENTATION, 0, panoptic_seg_map=stored(Image.fromarray(ids(0))))]
    dataset = read(
        write_shards(tmp_path, SEGMENTATION, rows, shards=1, types={"panoptic_seg_map": IMAGE}), SEGMENTATION
    )
    assert np.array_equal(np.asarray(dataset.row(dataset.records[0]).ids), ids(0))


@pytest.mark.parametrize("mode", ["P", "RGB", "I;16"])
def test_colours_are_no_train_ids(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(ids(0).astype(np.uint16) if mode == "I;16" else ids(0))
    label = stored(grey if mode == "I;16" else grey.convert(mode))
    rows = [row(SEGMENTATION, 0), row(SEGMENTATION, 1, panoptic_seg_map=label)]
    rows[0]["panoptic_seg_map"] = stored(Image.fromarray(ids(0)))
    write_shards(tmp_path, SEGMENTATION, rows, shards=1, types={"panoptic_seg_map": IMAGE})
    assert faults(tmp_path, SEGMENTATION) == [(shard(tmp_path, 0, 1).name, 0, "00001", "panoptic_seg_map")]
    if mode == "P":
        assert "a palette image" in message(tmp_path, SEGMENTATION)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (171, "the train ids 171; they must be from 0 to 170, or 255"),
        (254, "the train ids 254"),
        (-1, "the train ids -1"),
        (256, "the train ids 256"),
        (None, "pixels without a value"),
    ],
)
def test_a_label_out_of_range(tmp_path: Path, value: int | None, told: str) -> None:
    label = ids(1).tolist()
    label[3][4] = value
    rows = [row(SEGMENTATION, 0), row(SEGMENTATION, 1, panoptic_seg_map=label)]
    types = {"panoptic_seg_map": pa.list_(pa.list_(pa.int16()))}
    write_shards(tmp_path, SEGMENTATION, rows, shards=1, types=types)
    assert faults(tmp_path, SEGMENTATION) == [(shard(tmp_path, 0, 1).name, 0, "00001", "panoptic_seg_map")]
    assert told in message(tmp_path, SEGMENTATION)


def test_fewer_classes_make_fewer_ids_legal(tmp_path: Path) -> None:
    label = np.where(ids(0) < 12, ids(0), 255)
    write_shards(tmp_path, SEGMENTATION, [row(SEGMENTATION, 0, panoptic_seg_map=label.tolist())], shards=1)
    assert read(tmp_path, SEGMENTATION, classes=12).records
    assert len(faults(tmp_path, SEGMENTATION, classes=11)) == 1


@pytest.mark.parametrize("label", [None, [], [[]], [[1] * WIDTH, [1] * 3], [[1] * WIDTH, None]])
def test_a_label_that_is_no_matrix(tmp_path: Path, label: Any) -> None:
    write_shards(tmp_path, SEGMENTATION, [row(SEGMENTATION, 0, panoptic_seg_map=label)], shards=1)
    assert [place[3] for place in faults(tmp_path, SEGMENTATION)] == ["panoptic_seg_map"]


@pytest.mark.parametrize(
    ("task", "column"),
    [("depth", "image"), ("depth", "control_depth"), ("depth", "text"), ("canny", "image"), ("canny", "text"),
     (SEGMENTATION, "control_seg"), (SEGMENTATION, "prompt"), (SEGMENTATION, "panoptic_seg_map")],
)  # fmt: skip
def test_a_missing_column_is_named_before_any_row_is_read(tmp_path: Path, task: str, column: str) -> None:
    write_shards(tmp_path, task, [row(task, number, **{"image": stored(photo(0))}) for number in range(4)])
    path = shard(tmp_path, 1)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns([column]), path)
    with path.open("r+b") as file:  # nothing behind the footer is looked at
        file.seek(8)
        file.write(b"\0" * 64)
    assert faults(tmp_path, task) == [(path.name, None, None, column)]


@pytest.mark.parametrize(
    ("task", "column", "type_"),
    [
        ("depth", "text", pa.list_(pa.string())),
        ("depth", "image", pa.binary()),
        ("depth", "control_depth", pa.struct([("path", pa.string())])),
        (SEGMENTATION, "panoptic_seg_map", pa.list_(pa.uint8())),
        (SEGMENTATION, "panoptic_seg_map", pa.list_(pa.list_(pa.float32()))),
        (SEGMENTATION, "panoptic_seg_map", pa.string()),
    ],
)
def test_a_column_of_the_wrong_type_is_named(tmp_path: Path, task: str, column: str, type_: pa.DataType) -> None:
    write_shards(tmp_path, task, [row(task, 0, **{column: None})], shards=1, types={column: type_})
    assert faults(tmp_path, task) == [(shard(tmp_path, 0, 1).name, None, None, column)]
    assert "it is of type" in message(tmp_path, task)


def test_the_faults_of_all_files_are_told_together(tmp_path: Path) -> None:
    write(tmp_path, "depth", shards=3)
    table = pq.read_table(shard(tmp_path, 0, 3))
    pq.write_table(table.drop_columns(["text", "image"]), shard(tmp_path, 0, 3))
    shard(tmp_path, 2, 3).write_bytes(shard(tmp_path, 2, 3).read_bytes()[:-40])
    first, last = shard(tmp_path, 0, 3).name, shard(tmp_path, 2, 3).name
    assert faults(tmp_path, "depth") == [
        (first, None, None, "image"),
        (first, None, None, "text"),
        (last, None, None, None),
    ]


def test_the_faults_of_all_rows_are_told_together(tmp_path: Path) -> None:
    rows = [row("depth", number) for number in range(8)]
    rows[1]["text"] = "  "
    rows[2]["text"] = None
    rows[3]["image"] = {"bytes": b"no image", "path": "x.png"}
    rows[4]["image"] = {"bytes": None, "path": "x.png"}
    rows[4]["control_depth"] = None
    rows[6]["control_depth"] = stored(photo(0, WIDTH // 2, HEIGHT // 2))
    rows[7]["control_depth"]["bytes"] = rows[7]["control_depth"]["bytes"][:-60]
    write_shards(tmp_path, "depth", rows)
    first, last = shard(tmp_path, 0).name, shard(tmp_path, 1).name
    assert faults(tmp_path, "depth") == [
        (first, 0, "00001", "text"),
        (first, 1, "00002", "text"),
        (first, 1, "00003", "image"),
        (last, 0, "00004", "image"),
        (last, 0, "00004", "control_depth"),
        (last, 1, "00006", None),
        (last, 1, "00007", "control_depth"),
    ]
    text = message(tmp_path, "depth")
    assert "it names the file 'x.png' instead of holding it" in text
    assert f"image {WIDTH}x{HEIGHT}, control_depth {WIDTH // 2}x{HEIGHT // 2}" in text


def test_the_check_ends_after_many_faults(tmp_path: Path) -> None:
    rows = [row("canny", 0, text="") for _ in range(3 * MAX_FAULTS)]
    write_shards(tmp_path, "canny", rows, shards=1, row_group=100)
    found = faults(tmp_path, "canny")
    assert MAX_FAULTS < len(found) < 2 * MAX_FAULTS
    assert "the check ended here" in message(tmp_path, "canny")


def test_label_and_condition_have_the_images_size(tmp_path: Path) -> None:
    turned = row(SEGMENTATION, 0, panoptic_seg_map=ids(0).T.tolist())
    small = row(SEGMENTATION, 0, control_seg=stored(photo(0, WIDTH, HEIGHT - 1)))
    write_shards(tmp_path, SEGMENTATION, [turned, small], shards=1)
    assert [place[2:] for place in faults(tmp_path, SEGMENTATION)] == [("00000", None), ("00001", None)]
    assert f"panoptic_seg_map {HEIGHT}x{WIDTH}" in message(tmp_path, SEGMENTATION)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [5_000, 20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    write_shards(tmp_path, "canny", [row("canny", 0, image={"bytes": bomb, "path": None})], shards=1)
    assert [place[3] for place in faults(tmp_path, "canny")] == ["image"]


def test_maps_of_16_bits_are_scaled_and_of_32_refused(tmp_path: Path) -> None:
    depth = np.asarray(photo(0).convert("L"))
    deep = stored(Image.fromarray(depth * np.uint16(257)))
    dataset = read(write_shards(tmp_path / "16", "depth", [row("depth", 0, control_depth=deep)], shards=1), "depth")
    assert np.array_equal(np.asarray(dataset.row(dataset.records[0]).condition())[..., 0], depth)
    deeper = stored(Image.fromarray(depth.astype(np.int32)), "TIFF")
    write_shards(tmp_path / "32", "depth", [row("depth", 0, control_depth=deeper)], shards=1)
    assert "control_depth" in message(tmp_path / "32", "depth") and "8 or 16 bits" in message(tmp_path / "32", "depth")


def with_exif(image: Image.Image, orientation: int = 6) -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return stored(image, exif=exif)


@pytest.mark.parametrize("own", [False, True])
def test_maps_are_turned_with_the_image_unless_they_are_turned_themselves(tmp_path: Path, own: bool) -> None:
    values = row(SEGMENTATION, 0, image=with_exif(photo(0)))
    if own:
        values["control_seg"] = with_exif(Image.open(io.BytesIO(values["control_seg"]["bytes"])))
    dataset = read(write_shards(tmp_path, SEGMENTATION, [values], shards=1), SEGMENTATION)
    record = dataset.records[0]
    found, plain = dataset.row(record), Image.open(io.BytesIO(row(SEGMENTATION, 0)["control_seg"]["bytes"]))
    assert record.size == found.image().size == (HEIGHT, WIDTH)
    for turned, stored_pixels in ((found.image(), photo(0)), (found.condition(), plain), (found.ids, ids(0))):
        assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(stored_pixels), -1))
    assert "EXIF data turn the images of 1 record (00000)" in " ".join(dataset.notes)


def test_maps_that_fit_the_upright_image_stay_as_they_are(tmp_path: Path) -> None:
    upright = row(SEGMENTATION, 0, panoptic_seg_map=ids(0, HEIGHT, WIDTH).tolist())
    upright |= {"image": with_exif(photo(0)), "control_seg": stored(photo(1, HEIGHT, WIDTH))}
    dataset = read(write_shards(tmp_path, SEGMENTATION, [upright], shards=1), SEGMENTATION)
    found = dataset.row(dataset.records[0])
    assert np.array_equal(np.asarray(found.condition()), np.asarray(photo(1, HEIGHT, WIDTH)))
    assert np.array_equal(np.asarray(found.ids), ids(0, HEIGHT, WIDTH))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "long text"])
def test_the_formats_of_the_hub(tmp_path: Path, kind: str) -> None:
    if kind == "long text":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "x" * (3 << 20), zip=True)  # Pillow's own limit is 1 MiB
        image = stored(photo(0), pnginfo=text)
    else:
        image = stored(photo(0), kind, **({"lossless": True} if kind == "WEBP" else {}))
    dataset = read(write_shards(tmp_path, "canny", [row("canny", 0, image=image)], shards=1), "canny")
    assert np.array_equal(np.asarray(dataset.row(dataset.records[0]).image()), np.asarray(photo(0)))


def test_transparency_is_dropped(tmp_path: Path) -> None:
    clear = photo(0).convert("RGBA")
    clear.putalpha(0)
    dataset = read(write_shards(tmp_path, "canny", [row("canny", 0, image=stored(clear))], shards=1), "canny")
    assert np.array_equal(np.asarray(dataset.row(dataset.records[0]).image()), np.asarray(photo(0)))


def test_canny_can_be_read_from_the_depth_set_whatever_its_conditions(tmp_path: Path) -> None:
    rows = [row("depth", number, control_depth=None) for number in range(4)]
    dataset = read_translation(MULTIGEN_DEPTH, write_shards(tmp_path, "depth", rows), "canny")
    assert [record.task for record in dataset.records] == ["canny"] * 4


def test_equal_images_are_no_fault_and_are_known_as_equal(tmp_path: Path) -> None:
    rows = [row("canny", 0), row("canny", 1), row("canny", 0, text="another caption")]
    first, second, third = read(write_shards(tmp_path, "canny", rows), "canny").records
    assert first.image_sha256 == third.image_sha256 != second.image_sha256
    assert len({first.sample_id, second.sample_id, third.sample_id}) == 3


@pytest.mark.parametrize(("source", "task"), [(MULTIGEN_CANNY, "depth"), (MULTIGEN_DEPTH, SEGMENTATION)])
def test_a_data_set_that_does_not_have_the_task(tmp_path: Path, source: HubDataset, task: str) -> None:
    with pytest.raises(ValueError):
        read_translation(source, tmp_path, task)
    with pytest.raises(ValueError):
        read_translation(source, tmp_path, "hed")


def test_the_digest_depends_on_the_rows_and_not_on_their_files(tmp_path: Path) -> None:
    digest = read(write(tmp_path / "a", SEGMENTATION), SEGMENTATION).digest
    assert read(write(tmp_path / "b", SEGMENTATION, shards=3, row_group=1), SEGMENTATION).digest == digest
    changes: list[dict[str, Any]] = [
        {"prompt": "another"},
        {"image": stored(photo(9))},
        {"control_seg": stored(photo(9))},
        {"panoptic_seg_map": ids(1).tolist()},
    ]
    seen = {digest}
    for number, change in enumerate(changes):
        rows = [row(SEGMENTATION, each, **(change if each == 0 else {})) for each in range(6)]
        seen.add(read(write_shards(tmp_path / str(number), SEGMENTATION, rows), SEGMENTATION).digest)
    turned = [row(SEGMENTATION, each) for each in (1, 0, 2, 3, 4, 5)]
    seen.add(read(write_shards(tmp_path / "turned", SEGMENTATION, turned), SEGMENTATION).digest)
    assert len(seen) == len(changes) + 2


def test_a_file_that_changes_after_the_check(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, "canny", count=40, row_group=20), "canny")
    write_shards(tmp_path, "canny", [row("canny", 39 - number) for number in range(40)], row_group=20)
    with pytest.raises(DatasetError):
        dataset.row(dataset.records[0])


def test_a_file_that_is_damaged_after_the_check(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, "canny", count=80, row_group=40), "canny")
    shard(tmp_path, 0).write_bytes(b"PAR1")
    with pytest.raises(DatasetError):
        dataset.row(dataset.records[0])


def test_a_torn_row_group_is_told_once(tmp_path: Path) -> None:
    write(tmp_path, "canny", shards=1)
    path = shard(tmp_path, 0, 1)
    offset = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 32)
    assert faults(tmp_path, "canny") == [(path.name, 1, None, None)]


def test_rows_in_any_order_and_from_threads(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, "canny", count=60, shards=3, row_group=15), "canny")
    expected = [photo(number).tobytes() for number in range(60)]
    order = list(np.random.default_rng(0).permutation(60))
    assert all(dataset.row(dataset.records[n]).image().tobytes() == expected[n] for n in order)
    with ThreadPoolExecutor(4) as pool:
        images = pool.map(lambda record: dataset.row(record).image().tobytes(), dataset.records)
        assert list(images) == expected


@pytest.mark.parametrize(("row_group", "page"), [(10, 1024), (300, 4)])
def test_memory_is_flat_in_the_number_of_rows(tmp_path: Path, row_group: int, page: int) -> None:
    size, count = 50_000, 300
    data = np.random.default_rng(0).bytes(size)
    rows = [row("canny", 0, image={"bytes": bytes([n % 256]) + data, "path": None}) for n in range(count)]
    write_shards(tmp_path, "canny", rows, shards=1, row_group=row_group, page=page)
    usual, counted = pa.default_memory_pool(), pa.system_memory_pool()
    assert counted.backend_name != usual.backend_name  # nothing else is counted
    pa.set_memory_pool(counted)
    try:
        reader = Rows([shard(tmp_path, 0, 1)], {"image": "image", "text": "text"})
        for number in range(count):
            assert reader[number]["image"]["bytes"].as_py()[0] == number % 256
    finally:
        pa.set_memory_pool(usual)
    assert 10 * size < counted.max_memory() < count * size / 2


def test_rows_read_in_order_are_read_from_the_file_once(tmp_path: Path) -> None:
    write(tmp_path, "canny", count=40, shards=1, row_group=40)
    reader = Rows([shard(tmp_path, 0, 1)], {"text": "text"})
    reader[0]
    shard(tmp_path, 0, 1).unlink()  # the open file goes on; whoever opened it anew would fail
    assert [reader[number]["text"].as_py() for number in (0, 9, 5, 30, 39, 21)] == [
        f"picture {number}" for number in (0, 9, 5, 30, 39, 21)
    ]


@pytest.mark.parametrize("layout", ["", "data"])
def test_the_layouts(tmp_path: Path, layout: str) -> None:
    write(tmp_path, "canny")
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(b"not looked at")
    if not layout:
        for path in (tmp_path / "data").iterdir():
            shutil.move(path, tmp_path / path.name)
    assert len(read(tmp_path, "canny").records) == 6


def rename(number: int, name: str) -> Callable[[Path], None]:
    def copy(root: Path) -> None:
        shutil.copy(shard(root, number), shard(root, number).with_name(name))

    return copy


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda root: shard(root, 1).unlink(), "validation-00001-of-00002.parquet missing"),
        (rename(1, "validation-00001-of-00002-0a1b2c.parquet"), "would occur twice"),
        (rename(1, "validation-00001-of-00005.parquet"), "not numbered as one set"),
        (rename(1, "validation-00007-of-00002.parquet"), "not numbered as one set"),
        (lambda root: shutil.rmtree(root / "data"), "limingcv/MultiGen-20M_canny_eval"),
        (lambda root: shutil.rmtree(root), "no such folder"),
    ],
)
def test_shards_that_are_no_whole_set(tmp_path: Path, spoil: Callable[[Path], None], told: str) -> None:
    root = write(tmp_path / "set", "canny")
    spoil(root)
    assert told in message(root, "canny")


def test_a_set_without_rows(tmp_path: Path) -> None:
    write(tmp_path, "canny", count=0)
    assert "no rows" in message(tmp_path, "canny")
