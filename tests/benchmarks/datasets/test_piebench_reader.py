import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.datasets.faults import DatasetError
from benchmarks.datasets.piebench import EDIT_TYPES, read_piebench
from tests.benchmarks.tiny import SIDE, entry, picture, write_mapping, write_piebench

PARITY = Path(__file__).parents[2] / "parity" / "pie_bench"
FIRST = "000000000000"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_piebench(tmp_path / "data")
    return tmp_path / "data"


def faults(root: Path, side: int = SIDE) -> tuple[list[tuple[str | None, str | None]], str]:
    """(record, field) of every fault, and the whole message."""
    with pytest.raises(DatasetError) as caught:
        read_piebench(root, side)
    assert all(fault.remedy for fault in caught.value.faults)
    return [(fault.record, fault.field) for fault in caught.value.faults], str(caught.value)


def test_the_official_records() -> None:
    woman, grass = read_piebench(PARITY, 512).records
    assert woman.sample_id == "100000000000"
    assert woman.source_prompt == "a photo of a woman in an orange suit"
    assert woman.target_prompt == "a photo of a robot in an orange suit"
    assert woman.instruction == "change the woman to a robot"
    assert (woman.edit_type, woman.edit_type_name, woman.blend_words) == ("1", "change object", None)
    assert woman.image().size == (512, 512) and woman.image().mode == "RGB"
    assert woman.image_path.is_absolute()
    assert 0 < woman.mask().mean() < 0.5 and grass.mask().all()


def test_records_are_in_the_order_of_their_ids(root: Path) -> None:
    ids = [record.sample_id for record in read_piebench(root, SIDE).records]
    assert ids == sorted(ids) and len(ids) == 6


@pytest.mark.parametrize("folder", ["data", "PIE-Bench_v1", "."])
def test_the_layouts(tmp_path: Path, folder: str) -> None:
    write_piebench(tmp_path / folder)
    assert len(read_piebench(tmp_path, SIDE).records) == 6


@pytest.mark.parametrize(("text", "words"), [("", None), ("  ", None), ("cat dog", ("cat", "dog"))])
def test_blended_words(root: Path, text: str, words: tuple[str, str] | None) -> None:
    write_mapping(root, {"a": entry(0, blended_word=text)})
    assert read_piebench(root, SIDE).records[0].blend_words == words


def test_the_digest_depends_on_the_data_and_nothing_else(root: Path, tmp_path: Path) -> None:
    digest = read_piebench(root, SIDE).digest
    entries = json.loads((root / "mapping_file.json").read_text())
    write_mapping(root, {name: dict(reversed(entries[name].items())) for name in reversed(entries)})
    copy = tmp_path / "elsewhere"
    shutil.copytree(root, copy)
    assert read_piebench(copy, SIDE).digest == digest

    write_mapping(copy, entries | {FIRST: entries[FIRST] | {"editing_instruction": "make it green"}})
    assert read_piebench(copy, SIDE).digest != digest
    write_mapping(copy, entries)
    picture(99).save(copy / "annotation_images" / entries[FIRST]["image_path"])
    assert read_piebench(copy, SIDE).digest != digest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("editing_type_id", "10"),
        ("editing_type_id", 1),
        ("editing_instruction", None),
        ("original_prompt", ["a"]),
        ("editing_prompt", "half a pair \ud800"),
        ("blended_word", "lonely"),
        ("blended_word", 3),
        ("mask", [1]),
        ("mask", [-1, 4]),
        ("mask", [0, SIDE * SIDE + 1]),
        ("mask", [True, 1]),
        ("mask", [0.0, 1]),
        ("mask", [0, float("nan")]),
        ("mask", "0 1"),
        ("image_path", "0_type/absent.png"),
        ("image_path", "/etc/hostname"),
        ("image_path", "C:\\picture.png"),
        ("image_path", "../mapping_file.json"),
        ("image_path", "0_type/../../../outside.png"),
        ("image_path", "0_type"),
        ("image_path", ""),
        ("image_path", "nul\0byte.png"),
        ("image_path", "x" * 300 + ".png"),
        ("image_path", 5),
    ],
)
def test_a_faulty_field_is_named(root: Path, field: str, value: Any) -> None:
    write_mapping(root, {FIRST: entry(0, **{field: value}), "fine": entry(1)})
    places, message = faults(root)
    assert places == [(FIRST, field)]
    assert str(root / "mapping_file.json") in message


@pytest.mark.parametrize("field", sorted(entry(0).keys() - {"mask"}))
def test_a_missing_field_is_named(root: Path, field: str) -> None:
    record = entry(0)
    del record[field]
    write_mapping(root, {FIRST: record})
    assert faults(root)[0] == [(FIRST, field)]


def test_all_faults_are_reported_together(root: Path) -> None:
    record = entry(0, editing_type_id="x", mask=[1])
    del record["blended_word"]
    write_mapping(root, {"a": record, "b": 7, "c": entry(3, image_path="gone.png"), "d/e": entry(1), "fine": entry(2)})
    assert faults(root)[0] == [
        ("a", "blended_word"),
        ("a", "editing_type_id"),
        ("a", "mask"),
        ("b", None),
        ("c", "image_path"),
        ("d/e", None),
    ]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "nul\0", "ä", "x" * 200])
def test_an_id_that_is_no_file_name(root: Path, name: str) -> None:
    write_mapping(root, {name: entry(0)})
    assert faults(root)[0] == [(name, None)]


def test_ids_that_some_file_systems_mix_up(root: Path) -> None:
    write_mapping(root, {"Cat": entry(0), "cat": entry(1)})
    places, message = faults(root)
    assert places == [("cat", None)] and "'Cat'" in message


def test_duplicates_are_named(root: Path) -> None:
    one = json.dumps(entry(0))
    twice = one[:-1] + ', "editing_prompt": "again"}'
    (root / "mapping_file.json").write_text(f'{{"a": {one}, "b": {twice}, "a": {one}}}')
    assert faults(root)[0] == [("a", None), ("b", "editing_prompt")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": {"image_path": "x', "cut off"),
        (b"", "cut off"),
        (b"[]", "not an object"),
        (b"{}", "no records"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"a": ' + b"[" * 100_000, "nested too deep"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "too long"),
    ],
)
def test_a_broken_mapping_file(root: Path, content: bytes, message: str) -> None:
    (root / "mapping_file.json").write_bytes(content)
    places, text = faults(root)
    assert places == [(None, None)] and message in text and "mapping_file.json" in text


def test_a_mapping_that_git_lfs_did_not_fetch(root: Path) -> None:
    (root / "mapping_file.json").write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 9\n")
    assert "a pointer of Git LFS" in faults(root)[1]


def test_no_data_at_all(tmp_path: Path) -> None:
    assert "--data" in faults(tmp_path)[1]
    assert "no such folder" in faults(tmp_path / "absent")[1]


def test_images_of_the_wrong_size_are_refused(root: Path) -> None:
    places, message = faults(root, side=512)
    assert len(places) == 6 and "32x32 pixels, not 512x512" in message


@pytest.mark.parametrize("damage", ["text", "cut"])
def test_an_unreadable_image(root: Path, damage: str) -> None:
    path = root / "annotation_images" / entry(0)["image_path"]
    path.write_bytes(b"no image" if damage == "text" else path.read_bytes()[:-200])
    assert faults(root)[0] == [(FIRST, "image_path")]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_by_its_header(root: Path, side: int) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path = root / "annotation_images" / entry(0)["image_path"]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))
    assert faults(root)[0] == [(FIRST, "image_path")]


def test_links_that_leave_the_root(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    picture(0).save(outside / "secret.png")
    images = root / "annotation_images"
    os.symlink(outside / "secret.png", images / "file.png")
    os.symlink(outside, images / "folder")
    os.symlink(images / "loop.png", images / "loop.png")
    os.symlink(images / entry(0)["image_path"], images / "inside.png")
    names = {"a": "file.png", "b": "folder/secret.png", "c": "loop.png", "d": "inside.png"}
    write_mapping(root, {key: entry(0, image_path=name) for key, name in names.items()})
    places, message = faults(root)
    assert places == [("a", "image_path"), ("b", "image_path"), ("c", "image_path")]
    assert "by a link" in message


def test_an_image_folder_that_is_a_link_is_followed_where_the_user_says_so(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "annotation_images", tmp_path / "moved")
    os.symlink(tmp_path / "moved", root / "annotation_images")
    places, message = faults(root)
    assert len(places) == 6 and f"start with --follow-links {tmp_path / 'moved'}" in message
    assert len(read_piebench(root, SIDE, follow_links=tmp_path / "moved").records) == 6
    with pytest.raises(DatasetError):
        read_piebench(root, SIDE, follow_links=root.parent / "elsewhere")


def test_links_within_the_data_are_followed(root: Path) -> None:
    (root / "originals").mkdir()
    for path in list((root / "annotation_images").rglob("*.png")):
        os.symlink(shutil.move(path, root / "originals"), path)
    assert len(read_piebench(root, SIDE).records) == 6


def test_a_snapshot_of_the_hubs_cache(root: Path, tmp_path: Path) -> None:
    """Its files are links into the folder of blobs beside it; no others are followed."""
    repository = tmp_path / "datasets--somebody--PIE-Bench"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in root.rglob("*") if path.is_file())):
        shutil.copy(path, blobs / str(number))
        link = snapshot / path.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(os.path.relpath(blobs / str(number), link.parent), link)
    assert read_piebench(snapshot, SIDE).digest == read_piebench(root, SIDE).digest
    link = snapshot / "annotation_images" / entry(0)["image_path"]
    link.unlink()
    os.symlink(root / "annotation_images" / entry(0)["image_path"], link)
    assert faults(snapshot)[0] == [(FIRST, "image_path")]


def test_windows_paths_and_other_spellings_of_a_suffix(root: Path) -> None:
    digest = read_piebench(root, SIDE).digest
    entries = json.loads((root / "mapping_file.json").read_text())
    for record in entries.values():
        record["image_path"] = record["image_path"].replace("/", "\\")
    write_mapping(root, entries)
    assert read_piebench(root, SIDE).digest == digest
    for path in list((root / "annotation_images").rglob("*.png")):
        path.rename(path.with_suffix(".PNG"))
    assert read_piebench(root, SIDE).digest == digest


def test_a_root_that_is_a_link(root: Path, tmp_path: Path) -> None:
    os.symlink(root, tmp_path / "link")
    assert len(read_piebench(tmp_path / "link", SIDE).records) == 6


def test_a_mask_is_turned_with_the_pixels_it_was_drawn_on(root: Path) -> None:
    path = root / "annotation_images" / entry(0)["image_path"]
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    before = read_piebench(root, SIDE)
    image, mask = np.asarray(before.records[0].image()), before.records[0].mask()
    Image.open(path).save(path, exif=exif)
    after = read_piebench(root, SIDE)
    assert np.array_equal(np.asarray(after.records[0].image()), np.rot90(image, -1))
    assert np.array_equal(after.records[0].mask(), np.rot90(mask, -1))
    assert not before.notes and FIRST in after.notes[0]


def test_transparency_is_put_on_white(root: Path) -> None:
    Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0)).save(root / "annotation_images" / "clear.png")
    write_mapping(root, {"a": entry(0, image_path="clear.png")})
    assert np.all(np.asarray(read_piebench(root, SIDE).records[0].image()) == 255)


def test_an_image_that_changes_after_the_check(root: Path) -> None:
    record = read_piebench(root, SIDE).records[0]
    picture(99).save(record.image_path)
    with pytest.raises(ValueError):
        record.image()


def test_pie_bench_plus_plus_is_called_by_its_name(root: Path, tmp_path: Path) -> None:
    foreign = {"image_path": "x.png", "source_prompt": "a", "target_prompt": "b", "edit_action": {}, "mask": "0 1"}
    write_mapping(root, {"a": foreign, "b": foreign})
    assert "PIE-Bench++" in faults(root)[1]
    folder = tmp_path / "hub" / "0_random_140"
    folder.mkdir(parents=True)
    (folder / "V1-00000-of-00001.parquet").touch()
    assert "PIE-Bench++" in faults(tmp_path / "hub")[1]


def test_edit_types_are_the_ten() -> None:
    assert list(EDIT_TYPES) == [str(number) for number in range(10)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FIELD_CHANGES: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(sorted(entry(0))), JSON | st.lists(st.integers(-9, 2000)), max_size=7
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=JSON | st.dictionaries(st.text(), FIELD_CHANGES.map(lambda changes: entry(0, **changes)), max_size=3))
def test_arbitrary_json_is_read_or_refused_with_a_message(root: Path, content: Any) -> None:
    write_mapping(root, content)
    try:
        assert read_piebench(root, SIDE).records
    except DatasetError as error:
        assert error.faults and str(error)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_a_message(root: Path, content: bytes) -> None:
    (root / "mapping_file.json").write_bytes(content)
    with pytest.raises(DatasetError):
        read_piebench(root, SIDE)
