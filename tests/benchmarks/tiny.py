"""A PIE-Bench of a few small images in the real layout, written anywhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 32


def picture(seed: int, side: int = SIDE) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def entry(number: int, side: int = SIDE, **changes: Any) -> dict[str, Any]:
    """One record of the mapping file; `changes` replaces fields."""
    row = side // 2
    return {
        "image_path": f"{number % 10}_type/{number:012d}.png",
        "original_prompt": f"a [red] ball number {number}",
        "editing_prompt": f"a [blue] ball number {number}",
        "editing_instruction": f"make ball {number} blue",
        "editing_type_id": str(number % 10),
        "blended_word": "red blue",
        "mask": [row * side + 2, side // 2, (row + 1) * side + 2, side // 2],
        **changes,
    }


def write_piebench(root: Path, count: int = 6, side: int = SIDE) -> dict[str, dict[str, Any]]:
    """Writes images and mapping file; returns the entries."""
    entries = {f"{number:012d}": entry(number, side) for number in range(count)}
    for number, record in enumerate(entries.values()):
        path = root / "annotation_images" / record["image_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, side).save(path)
    write_mapping(root, entries)
    return entries


def write_mapping(root: Path, entries: Mapping[str, Any]) -> None:
    (root / "mapping_file.json").write_text(json.dumps(entries), encoding="utf-8")
