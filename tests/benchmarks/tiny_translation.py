"""Small parquet files in the schemas of the hub's translation sets, written anywhere, with any fault."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.benchmarks.tiny import picture

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IDS = pa.list_(pa.list_(pa.uint8()))
TEXT = pa.string()
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "depth": {"image": IMAGE, "control_depth": IMAGE, "text": TEXT},
    "canny": {"image": IMAGE, "text": TEXT},
    "segmentation": {
        "image": IMAGE,
        "control_seg": IMAGE,
        "prompt": TEXT,
        "semantic_seg_map": IDS,
        "panoptic_seg_map": IDS,
        "image_path": TEXT,
    },
}
WIDTH, HEIGHT = 24, 16


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> dict[str, Any]:
    """The hub's image struct."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def photo(number: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return picture(number, width).resize((width, height))


def ids(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Train ids uint8 (height, width): all of 0 to 170 in turn, and 255."""
    flat = (np.arange(width * height) + 50 * number) % 172
    return np.where(flat == 171, 255, flat).astype(np.uint8).reshape(height, width)


def row(task: str, number: int, **changes: Any) -> dict[str, Any]:
    """One row; `changes` replaces values."""
    values: dict[str, Any] = {"image": stored(photo(number))}
    if task == "segmentation":
        colours = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
        values |= {
            "control_seg": stored(Image.fromarray(colours[ids(number)])),
            "prompt": f"picture {number}",
            "semantic_seg_map": np.full((HEIGHT, WIDTH), 7).tolist(),  # nobody may read this one
            "panoptic_seg_map": ids(number).tolist(),
            "image_path": f"val2017/{number:012d}.jpg",
        }
    else:
        values["text"] = f"picture {number}"
        if task == "depth":
            values["control_depth"] = stored(photo(1000 + number).convert("L").convert("RGB"))
    return values | changes


def write_shards(
    root: Path,
    task: str,
    rows: list[dict[str, Any]],
    *,
    shards: int = 2,
    row_group: int = 2,
    page: int = 1024,
    types: dict[str, pa.DataType] | None = None,
) -> Path:
    """Writes root/data/validation-*.parquet, pages of at most `page` rows. `types` replaces types of columns."""
    (root / "data").mkdir(parents=True, exist_ok=True)
    schema = pa.schema({name: (types or {}).get(name, type_) for name, type_ in COLUMNS[task].items()})
    for number in range(shards):
        part = rows[number * len(rows) // shards : (number + 1) * len(rows) // shards]
        table = pa.Table.from_pylist([{name: each.get(name) for name in schema.names} for each in part], schema)
        pq.write_table(table, shard(root, number, shards), row_group_size=row_group, write_batch_size=page)
    return root


def write(root: Path, task: str, count: int = 6, **options: Any) -> Path:
    return write_shards(root, task, [row(task, number) for number in range(count)], **options)


def shard(root: Path, number: int, total: int = 2) -> Path:
    return root / "data" / f"validation-{number:05d}-of-{total:05d}.parquet"
