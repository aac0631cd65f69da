"""The embedded translation sets: held-out scenes of the world, written as the hub publishes its validation sets."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.miniature.world.piebench import ensure_written
from benchmarks.miniature.world.render import condition, render, segmentation
from benchmarks.miniature.world.scene import Scene, caption, random_scene

SEED = 2502
ROWS = 70
SHARDS = 2
ROW_GROUP = 16  # the hub's hold 100 rows

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_IDS = pa.list_(pa.list_(pa.uint8()))
# The columns of the hub's sets, in their order. Depth and canny show the same scenes, as on the hub.
SCHEMAS = {
    "depth": pa.schema([("image", _IMAGE), ("control_depth", _IMAGE), ("text", pa.string())]),
    "canny": pa.schema([("image", _IMAGE), ("text", pa.string())]),
    "segmentation": pa.schema([
        ("image", _IMAGE), ("control_seg", _IMAGE), ("prompt", pa.string()), ("semantic_seg_map", _IDS),
        ("panoptic_seg_map", _IDS), ("image_path", pa.string()),
    ]),
}  # fmt: skip


def held_out_scenes(task: str, count: int = ROWS, seed: int = SEED) -> list[Scene]:
    """`count` different scenes that no training has seen; equal for depth and canny, others for segmentation."""
    rng = np.random.default_rng((seed, int(task == "segmentation")))
    scenes: dict[Scene, None] = {}
    while len(scenes) < count:
        scene = random_scene(rng)
        if scene.held_out:
            scenes[scene] = None
    return list(scenes)


def ensure_translation(root: Path, task: str) -> Path:
    """Write the embedded set of `task` to `root` unless it is there as this code makes it; returns `root`."""
    return ensure_written(root, lambda folder: write_translation(folder, task, held_out_scenes(task)))


def write_translation(root: Path, task: str, scenes: list[Scene], shards: int = SHARDS) -> None:
    """data/validation-0000k-of-0000n.parquet of `scenes` in the hub's schema."""
    (root / "data").mkdir(parents=True)
    schema = SCHEMAS[task].with_metadata({"huggingface": json.dumps({"info": {"features": _features(task)}})})
    rows = list(_rows(task, scenes))
    for number in range(shards):
        part = rows[number * len(rows) // shards : (number + 1) * len(rows) // shards]
        path = root / "data" / f"validation-{number:05d}-of-{shards:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(part, schema), path, row_group_size=ROW_GROUP)


def _rows(task: str, scenes: list[Scene]) -> Iterator[dict[str, Any]]:
    for number, scene in enumerate(scenes):
        row: dict[str, Any] = {"image": _png(render(scene), f"{number:05d}.png")}
        if task == "segmentation":
            ids = segmentation(scene).tolist()
            row |= {
                "control_seg": _png(condition(scene, task), None), "prompt": caption(scene), "semantic_seg_map": ids,
                "panoptic_seg_map": ids, "image_path": f"{number:05d}.png",
            }  # fmt: skip
        else:
            row["text"] = caption(scene)
            if task == "depth":
                row["control_depth"] = _png(condition(scene, task), None)
        yield row


def _png(pixels: np.ndarray, path: str | None) -> dict[str, Any]:
    """The hub's image struct."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": path}


def _features(task: str) -> dict[str, Any]:
    """What the `datasets` library reads to know an image from a struct."""
    ids = {"_type": "Sequence", "feature": {"_type": "Sequence", "feature": {"_type": "Value", "dtype": "uint8"}}}
    kinds = {_IMAGE: {"_type": "Image"}, _IDS: ids, pa.string(): {"_type": "Value", "dtype": "string"}}
    return {field.name: kinds[field.type] for field in SCHEMAS[task]}
