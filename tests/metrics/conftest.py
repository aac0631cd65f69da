"""Small networks behind the interfaces of metrics/networks/backbones.py, and the reference photographs."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from metrics.networks.backbones import Backbones

PARITY = Path(__file__).parents[1] / "parity"


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass
class SmallNetwork:
    """One random convolution; it serves as all three backbones and counts the images and texts it is given."""

    name: str = "small"
    official: bool = False
    digest: str = "0" * 64
    images: int = 0
    texts: int = 0
    weight: Tensor = field(default_factory=lambda: random(6, 3, 4, 4, seed=0))

    def _forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return F.conv2d(images, self.weight, stride=4)

    def keys(self, images: Tensor) -> Tensor:
        return self._forward(images).flatten(2).transpose(1, 2)

    def features(self, images: Tensor) -> list[Tensor]:
        return [self._forward(images)]

    def distance(self, features_a: list[Tensor], features_b: list[Tensor]) -> Tensor:
        return (features_a[0] - features_b[0]).square().mean((1, 2, 3))

    def image_embedding(self, images: Tensor) -> Tensor:
        return F.normalize(self._forward(images).mean((2, 3)), dim=-1)

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        return [False] * len(texts)

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        self.texts += len(texts)
        return F.normalize(torch.cat([random(1, 6, seed=sum(map(ord, text))) for text in texts]), dim=-1)


@pytest.fixture
def backbones() -> Backbones:
    return Backbones(structure=SmallNetwork(), perceptual=SmallNetwork(), clip=SmallNetwork())


@dataclass(frozen=True)
class Photographs:
    """Batches from tests/parity/pie_bench: images (B, 3, 512, 512) in [0, 1], masks (B, 1, 512, 512) bool."""

    ids: list[str]
    sources: Tensor
    edited: Tensor
    masks: Tensor
    prompts: list[str]
    expected: dict[str, dict[str, float]]


@pytest.fixture(scope="session")
def photographs() -> Photographs:
    root = PARITY / "pie_bench"
    records = json.loads((root / "mapping_file.json").read_text())
    masks = torch.zeros(len(records), 512 * 512, dtype=torch.bool)
    for mask, record in zip(masks, records.values(), strict=True):
        for start, length in zip(record["mask"][::2], record["mask"][1::2], strict=True):
            mask[start : start + length] = True
    masks = masks.view(-1, 1, 512, 512)
    masks[..., [0, -1], :] = True
    masks[..., [0, -1]] = True
    return Photographs(
        ids=list(records),
        sources=torch.stack([read(root / "annotation_images" / r["image_path"]) for r in records.values()]),
        edited=torch.stack([read(root / "edited" / "annotation_images" / r["image_path"]) for r in records.values()]),
        masks=masks,
        prompts=[r["editing_prompt"].replace("[", "").replace("]", "") for r in records.values()],
        expected=json.loads((root / "expected.json").read_text()),
    )


def read(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="session")
def hashfill() -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """The filler of the reference weights."""
    return load_module(PARITY / "hashfill.py").hashfill


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
