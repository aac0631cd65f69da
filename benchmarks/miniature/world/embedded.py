"""The embedded data sets, of held-out edits and scenes: PIE-Bench in the layout of PIE-Bench_v1, and the translation
sets as the hub publishes its validation sets."""

import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.miniature.world.edits import Edit, random_edit
from benchmarks.miniature.world.render import condition, render, segmentation
from benchmarks.miniature.world.scene import PLACES, Scene, Thing, article, caption, describe, random_scene
from editar.io.atomic import replacing_folder
from editar.io.digests import DamagedError, check_sums, write_sums

SEED = 2501
# A tenth of the official counts, type by type.
COUNTS = {"0": 14, "1": 8, "2": 8, "3": 8, "4": 4, "5": 4, "6": 4, "7": 4, "8": 8, "9": 8}
FOLDERS = {
    "0": "0_random_140", "1": "1_change_object_80", "2": "2_add_object_80", "3": "3_delete_object_80",
    "4": "4_change_attribute_content_40", "5": "5_change_attribute_pose_40", "6": "6_change_attribute_color_40",
    "7": "7_change_attribute_material_40", "8": "8_change_background_80", "9": "9_change_style_80",
}  # fmt: skip
TRANSLATION_SEED = 2502
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


def held_out_edits(counts: dict[str, int], seed: int = SEED) -> list[Edit]:
    """`counts[type]` edits of every type, each with a source scene of its own that no training has seen."""
    edits: list[Edit] = []
    seen: set[Scene] = set()
    for type_id, count in counts.items():
        rng = np.random.default_rng((seed, int(type_id)))
        wanted = len(edits) + count
        while len(edits) < wanted:
            edit = random_edit(rng, type_id)
            if edit.source.held_out and edit.source not in seen:
                seen.add(edit.source)
                edits.append(edit)
    return edits


def world_digest() -> str:
    """SHA-256 of the code that the embedded data come from: data of another world are made anew."""
    code = hashlib.sha256()
    for name in ("scene", "render", "edits", "embedded"):
        code.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return code.hexdigest()


def ensure_piebench(root: Path) -> Path:
    """Write the embedded PIE-Bench to `root` unless it is there as this code makes it; returns `root`."""
    return ensure_written(root, lambda folder: write_piebench(folder, held_out_edits(COUNTS)))


def ensure_written(root: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` make the folder `root`, whole or not at all, unless it is there with this world's digest, and every
    file as it was written."""
    stamp = root / "world.sha256"
    if not stamp.is_file() or stamp.read_text("ascii", "replace") != world_digest() or _is_damaged(root):
        with replacing_folder(root) as building:
            write(building)
            (building / stamp.name).write_text(world_digest())
            write_sums(building)
    return root


def _is_damaged(root: Path) -> bool:
    try:
        check_sums(root)
    except DamagedError as error:
        print(f"note: {error}; the data set is drawn again", file=sys.stderr)
        return True
    return False


def sample_ids(edits: Sequence[Edit]) -> list[str]:
    """The edits' ids in the data set: the type's, then a number within it."""
    numbers: Counter[str] = Counter()
    names = []
    for edit in edits:
        names.append(f"{edit.type_id}{numbers[edit.type_id]:011d}")
        numbers[edit.type_id] += 1
    return names


def write_piebench(root: Path, edits: list[Edit]) -> None:
    """annotation_images/ and mapping_file.json of `edits`, and their exact results under ground_truth/."""
    records = {}
    for name, edit in zip(sample_ids(edits), edits, strict=True):
        path = Path(FOLDERS[edit.type_id], f"{name}.png")
        for folder, scene in (("annotation_images", edit.source), ("ground_truth", edit.target)):
            file = root / folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(render(scene)).save(file)
        records[name] = {
            "image_path": path.as_posix(),
            "original_prompt": _bracketed(edit, edit.source, edit.before),
            "editing_prompt": _bracketed(edit, edit.target, edit.after),
            "editing_instruction": edit.instruction,
            "editing_type_id": edit.type_id,
            "blended_word": " ".join(edit.blend_words or ()),
            "mask": mask_runs(edit.mask()),
        }
    (root / "mapping_file.json").write_text(json.dumps(records, indent=1))


def _bracketed(edit: Edit, scene: Scene, thing: Thing | None) -> str:
    """The scene's caption with square brackets round what the edit is about, as PIE-Bench's annotators put them."""
    words = caption(scene)
    if edit.kind == "background":
        part = PLACES[scene.background]
    elif edit.kind == "style" and scene.style != "photo":
        part = article(scene.style)
    elif thing is not None:
        part = describe(thing)
    else:
        return words
    return words.replace(part, f"[{part}]", 1)


def mask_runs(mask: np.ndarray) -> list[int]:
    """Flat [start, length, start, length ...] of the true pixels, row by row."""
    flat = np.concatenate([[0], mask.ravel().astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat))
    starts, stops = edges[::2], edges[1::2]
    return np.stack([starts, stops - starts], 1).ravel().tolist()


def held_out_scenes(task: str, count: int = ROWS, seed: int = TRANSLATION_SEED) -> list[Scene]:
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
