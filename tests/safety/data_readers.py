"""The readers of data sets under fuzz: what each is given, and what it may give or refuse."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import assume
from hypothesis import strategies as st

from benchmarks.datasets.encoded import CellError, decode_rgb
from benchmarks.datasets.faults import DatasetError
from benchmarks.datasets.hub import COCO_STUFF, MULTIGEN_DEPTH
from benchmarks.datasets.masks import decode_mask, mask_fault
from benchmarks.datasets.piebench import read_piebench
from benchmarks.datasets.translation import read_translation
from benchmarks.runs.schema import SAMPLE_ID
from editar.io.image_files import ImageError, read_image
from editar.training.data.jsonl import find_lines, read_lines
from editar.training.data.parquet import find_local, read_tables
from editar.training.data.rows import KINDS, Prepare, Row, RowFault
from tests.benchmarks.tiny import SIDE, entry
from tests.safety.strategies import (
    IMAGES,
    JSON,
    LINKS,
    NAMES,
    PNG,
    SCALARS,
    Case,
    as_json,
    changed,
    damaged,
    encoded,
    refused_by_name,
    text_file,
)

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PICTURES = {"a.png": PNG, "b.jpg": encoded("JPEG"), "folder/a.png": PNG}


# --- PIE-Bench

ENTRY = changed(entry(0, image_path="a.png"), JSON | NAMES | st.lists(st.integers(-2, SIDE * SIDE + 2), max_size=8))
MAPPING = st.dictionaries(NAMES | st.text(max_size=6) | st.sampled_from(["a", "A", "b"]), ENTRY | JSON, max_size=3)
WHOLE_MAPPING = as_json({"a": entry(0, image_path="a.png"), "b": entry(1, image_path="b.png")})
piebench_cases = st.tuples(text_file(WHOLE_MAPPING, (MAPPING | JSON).map(as_json)), IMAGES).map(
    lambda both: Case(
        files={
            "mapping_file.json": both[0],
            **{f"annotation_images/{name}": content for name, content in PICTURES.items()},
            "annotation_images/a.png": encoded(size=(SIDE, SIDE)),
            "annotation_images/b.png": both[1],
        },
        links={f"annotation_images/{name}": f"annotation_images/../{target}" for name, target in LINKS.items()},
    )
)


def piebench(root: Path, more: Any) -> None:
    try:
        dataset = read_piebench(root, SIDE)
    except DatasetError as error:
        return refused_by_name(error, root)
    for record in dataset.records:
        assert SAMPLE_ID.fullmatch(record.sample_id)
        assert record.image_path.is_relative_to(root.resolve() / "annotation_images")
        assert record.image().size == (SIDE, SIDE) and record.mask().shape == (SIDE, SIDE)


mask_cases = st.tuples(
    st.integers(1, 6), st.lists(st.integers(-2, 40), max_size=8) | st.lists(SCALARS, max_size=4) | JSON
).map(lambda both: Case(files={}, more=both))


def masks(root: Path, more: Any) -> None:
    side, runs = more
    if mask_fault(runs, side) is not None:
        return
    naive = np.zeros(side * side, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        naive[start : start + length] = True
    naive = naive.reshape(side, side)
    naive[[0, -1]] = naive[:, [0, -1]] = True
    assert np.array_equal(decode_mask(runs, side), naive)


# --- translation

CELL = st.none() | st.fixed_dictionaries(
    {"bytes": st.none() | IMAGES, "path": st.none() | st.just("../outside/secret.png")}
)
LABEL = st.none() | st.lists(st.none() | st.lists(st.none() | st.integers(0, 255), max_size=4), max_size=4)
LABEL |= st.just([[1] * 16] * 16)


def shard(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    file = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema), file, row_group_size=2)
    except (pa.ArrowException, UnicodeEncodeError):
        assume(False)
    return file.getvalue()


DEPTH_SCHEMA = pa.schema([("image", IMAGE), ("control_depth", IMAGE), ("text", pa.string())])
SEGMENTATION_SCHEMA = pa.schema([
    ("image", IMAGE), ("control_seg", IMAGE), ("prompt", pa.string()),
    ("panoptic_seg_map", pa.list_(pa.list_(pa.uint8()))),
])  # fmt: skip
OTHER_TYPES = st.sampled_from(
    [
        pa.string(),
        pa.binary(),
        pa.int64(),
        pa.float32(),
        pa.list_(pa.uint8()),
        IMAGE,
        pa.struct([("path", pa.string())]),
    ]
)


@st.composite
def tables(draw: st.DrawFn, schema: pa.Schema) -> bytes:
    """A parquet file of the schema, now and then with a column less or of another type."""
    values = {"string": st.none() | st.text(max_size=6)}
    rows = [
        {field.name: draw(CELL if field.type == IMAGE else values.get(str(field.type), LABEL)) for field in schema}
        for _ in range(draw(st.integers(0, 4)))
    ]
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(schema) - 1))
        schema = schema.set(place, pa.field(schema[place].name, draw(OTHER_TYPES)))
        rows = [{name: value for name, value in row.items() if name != schema[place].name} for row in rows]
    return shard(rows, schema)


def whole_table(schema: pa.Schema) -> bytes:
    cell = {"bytes": PNG, "path": None}
    values = {"string": "a text"}
    row = {each.name: cell if each.type == IMAGE else values.get(str(each.type), [[1] * 16] * 16) for each in schema}
    return shard([row] * 3, schema)


def table_files(schema: pa.Schema) -> st.SearchStrategy[bytes]:
    return tables(schema) | damaged(whole_table(schema))


translation_cases = st.one_of(
    table_files(DEPTH_SCHEMA).map(lambda content: (content, "depth")),
    table_files(DEPTH_SCHEMA).map(lambda content: (content, "canny")),
    table_files(SEGMENTATION_SCHEMA).map(lambda content: (content, "segmentation")),
).map(lambda both: Case(files={"validation-00000-of-00001.parquet": both[0]}, more=both[1]))


def translation(root: Path, more: Any) -> None:
    try:
        dataset = read_translation(COCO_STUFF if more == "segmentation" else MULTIGEN_DEPTH, root, more)
        rows = [dataset.row(record) for record in dataset.records]
    except DatasetError as error:
        return refused_by_name(error, root)
    assert rows
    for row in rows:
        assert row.image().size == row.record.size and row.record.caption.strip()
        assert row.ids is None or (
            row.ids.shape == row.record.size[::-1] and ((row.ids < 171) | (row.ids == 255)).all()
        )


image_cases = IMAGES.map(lambda content: Case(files={"image": content}))


def images(root: Path, more: Any) -> None:
    from editar.images import ImageError as EditError
    from editar.images import open_image

    path = root / "image"
    try:
        assert decode_rgb(path.read_bytes())[0].size[0] <= 1 << 24
    except CellError as error:
        assert str(error)
    try:
        assert read_image(path, (16, 16))[0].size == (16, 16)
    except ImageError as error:
        assert str(error)
    try:
        assert open_image(path).width > 0
    except EditError as error:
        refused_by_name(error, root)


# --- training

LINE = changed({"source": "a.png", "target": "b.jpg", "instruction": "make it red"}, JSON | NAMES)
LINES = st.lists(text_file(b'{"source": "a.png"}', (LINE | JSON).map(as_json)), max_size=4).map(b"\n".join)
jsonl_cases = st.tuples(LINES, IMAGES).map(
    lambda both: Case(files={"pairs.jsonl": both[0], **PICTURES, "damaged.png": both[1]}, links=LINKS)
)


def prepared(rows: list[Row], root: Path) -> None:
    prepare = Prepare(side=8)
    for row in rows:
        assert str(root) in row["origin"]
        try:
            example = prepare({**row, "draw": 0})
        except RowFault as error:
            assert str(error)
            continue
        assert example.source.shape == example.target.shape == (3, 8, 8) and isinstance(example.text, str)
        example.text.encode("utf-8")


def training_jsonl(root: Path, more: Any) -> None:
    try:
        rows = list(read_lines(find_lines("pairs", root)))
    except ValueError as error:
        return refused_by_name(error, root)
    prepared(rows, root)


PIPE_SCHEMA = pa.schema([("source_img", IMAGE), ("target_img", IMAGE), ("Instruction_VLM-LLM", pa.string())])
training_parquet_cases = st.one_of(
    table_files(PIPE_SCHEMA).map(lambda content: (content, "pipe")),
    table_files(DEPTH_SCHEMA).map(lambda content: (content, "depth")),
).map(lambda both: Case(files={"train-00000-of-00001.parquet": both[0]}, more=both[1]))


def training_parquet(root: Path, more: Any) -> None:
    assert more in KINDS
    try:
        rows = list(read_tables(find_local(more, root)))
    except ValueError as error:
        return refused_by_name(error, root)
    prepared(rows, root)
