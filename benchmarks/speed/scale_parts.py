"""Parts of a simulated benchmark: a PIE-Bench of any number of tiny images, a method and networks that cost nothing.

What is left are the costs of the benchmark itself, which must not grow with the records: reading, asking, writing and
reading images, keeping samples, merging, rendering.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from baselines.method import EditRequest
from benchmarks.datasets.piebench import EDIT_TYPES, IMAGES, MAPPING
from metrics.networks.backbones import Backbones

SIDE = 16  # pixels; SSIM's window has 11


def write_records(root: Path, count: int) -> Path:
    """A PIE-Bench of `count` records with images of noise and a mask of some rows; returns `root`."""
    entries = {}
    for number in range(count):
        name = f"{number % len(EDIT_TYPES)}/{number:012d}.png"
        path = root / IMAGES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number)).save(path)
        entries[f"{number:012d}"] = {
            "image_path": name,
            "original_prompt": f"a picture of [noise] {number}",
            "editing_prompt": f"a picture of [other noise] {number}",
            "editing_instruction": f"change the noise of picture {number}",
            "editing_type_id": str(number % len(EDIT_TYPES)),
            "blended_word": "",
            "mask": [each for row in range(4, 8) for each in (SIDE * row + 4, 8)],
        }
    (root / MAPPING).write_text(json.dumps(entries), encoding="utf-8")
    return root


def noise(seed: int) -> np.ndarray:
    """uint8 (SIDE, SIDE, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


class SyntheticMethod:
    """Answers with noise of the sample's seed and its own number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def settings(self) -> dict[str, Any]:
        return {"number": self.number}

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        return [Image.fromarray(noise(request.seed ^ self.number)) for request in requests]


class _Network:
    """The mean colours of 4 x 4 parts, in the place of a network's features."""

    official = False

    def __init__(self, name: str) -> None:
        self.name = f"mean-colours-{name}"
        self.digest = hashlib.sha256(self.name.encode()).hexdigest()

    def colours(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 4)


class _Structure(_Network):
    def keys(self, images: Tensor) -> Tensor:
        return self.colours(images).flatten(2).transpose(1, 2)


class _Perceptual(_Network):
    def features(self, images: Tensor) -> list[Tensor]:
        return [self.colours(images)]

    def distance(self, features_a: list[Tensor], features_b: list[Tensor]) -> Tensor:
        return (features_a[0] - features_b[0]).square().mean((1, 2, 3))


class _Clip(_Network):
    def image_embedding(self, images: Tensor) -> Tensor:
        return F.normalize(self.colours(images).flatten(1), dim=-1)

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        rows = [np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)[np.arange(48) % 32] for text in texts]
        return F.normalize(torch.from_numpy(np.stack(rows)).float(), dim=-1)


def cheap_backbones() -> Backbones:
    return Backbones(structure=_Structure("keys"), perceptual=_Perceptual("patches"), clip=_Clip("whole"))
