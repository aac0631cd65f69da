"""The published data sets in their published formats, a few small rows of each."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# Beside the columns that are read, some of those that are not.
COLUMNS = {
    "pipe": {
        "source_img": IMAGE,
        "target_img": IMAGE,
        "Instruction_VLM-LLM": pa.string(),
        "Instruction_Class": pa.string(),
        "object_location": pa.string(),
    },
    "depth": {"image": IMAGE, "control_depth": IMAGE, "text": pa.string()},
    "segmentation": {
        "image": IMAGE,
        "control_seg": IMAGE,
        "prompt": pa.string(),
        "panoptic_seg_map": pa.list_(pa.list_(pa.uint8())),
    },
}


def picture(number: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """A smooth picture with a bright square: no two numbers give the same, and it has edges."""
    pixels = np.random.default_rng(number).integers(0, 100, (2, 2, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    image.paste((255, 255, 255), (5, 4, 5 + 3 + number % 5, 11))
    return image


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    picture(number).save(file, "PNG")
    return file.getvalue()


def write_parquet(folder: Path, kind: str, rows: int, files: int = 2, group: int = 3) -> Path:
    """Row i has picture(i) as its image or target, and picture(1000 + i) as its source or condition."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(list(COLUMNS[kind].items()))
    for number, part in enumerate(np.array_split(np.arange(rows), files)):
        table = pa.Table.from_pylist([_row(kind, int(i)) for i in part], schema)
        pq.write_table(table, folder / f"train-{number:05d}-of-{files:05d}.parquet", row_group_size=group)
    (folder / "validation-00000-of-00001.parquet").write_bytes(b"not for training")
    return folder


def _row(kind: str, i: int) -> dict:
    target, source = {"bytes": encoded(i), "path": None}, {"bytes": encoded(1000 + i), "path": None}
    if kind == "pipe":
        texts = {"Instruction_VLM-LLM": f"Add a disc, number {i}", "Instruction_Class": "", "object_location": "left"}
        return {"source_img": source, "target_img": target, **texts}
    if kind == "depth":
        return {"image": target, "control_depth": source, "text": f"scene {i}"}
    return {"image": target, "control_seg": source, "prompt": f"scene {i}", "panoptic_seg_map": [[1, 2], [3, 255]]}


def write_seed(folder: Path, rows: int) -> Path:
    """Pairs as `write_parquet`'s, as SEED-Data-Edit's Unsplash part lies on a disk: lines here, images there."""
    place = folder / "auto_editing" / "unsplash"
    write_jsonl(place, rows, ("source_image", "target_image"))
    (place / "annotations").mkdir()
    lines = (place / "pairs.jsonl").read_text().replace("images/", "")
    (place / "annotations" / "split_0001.jsonl").write_text(lines)
    (place / "pairs.jsonl").unlink()
    return folder


def write_jsonl(folder: Path, rows: int, names: tuple[str, str] = ("source", "target")) -> Path:
    """Pairs as `write_parquet`'s, with the images in images/."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(rows):
        (folder / "images" / f"{i}-target.png").write_bytes(encoded(i))
        (folder / "images" / f"{i}-source.png").write_bytes(encoded(1000 + i))
        files = {names[0]: f"images/{i}-source.png", names[1]: f"images/{i}-target.png"}
        lines.append(json.dumps({**files, "instruction": f"change {i}"}) + "\n")
    (folder / "pairs.jsonl").write_text("".join(lines))
    return folder
