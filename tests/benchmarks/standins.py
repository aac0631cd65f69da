"""Small real networks with fixed random weights, in place of the scoring backbones."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.networks.backbones import Backbones, TranslationBackbones


class _Standin:
    official = False

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.digest = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 8, 4, stride=4).requires_grad_(False)


class Structure(_Standin):
    def keys(self, images: Tensor) -> Tensor:
        return self.conv(F.adaptive_avg_pool2d(images, (32, 32))).flatten(2).transpose(1, 2)


class Perceptual(_Standin):
    def features(self, images: Tensor) -> list[Tensor]:
        return [self.conv(images)]

    def distance(self, features_a: list[Tensor], features_b: list[Tensor]) -> Tensor:
        return (features_a[0] - features_b[0]).square().mean((1, 2, 3))


class Clip(_Standin):
    def image_embedding(self, images: Tensor) -> Tensor:
        return F.normalize(self.conv(images).mean((2, 3)), dim=-1)

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        return [len(text.split()) > 77 for text in texts]

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        rows = [list(hashlib.sha256(text.encode()).digest()[:8]) for text in texts]
        return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def backbones(seed: int = 0) -> Backbones:
    return Backbones(
        structure=Structure("tiny-structure", seed),
        perceptual=Perceptual("tiny-lpips", seed),
        clip=Clip("tiny-clip", seed),
    )


class Depth(_Standin):
    def depth(self, images: Tensor) -> Tensor:
        return self.conv(images)[:, 0]


class Segmentation(_Standin):
    classes = 171

    def labels(self, images: Tensor) -> Tensor:
        return (images.sum(1) * 1000).long() % self.classes


class Features(_Standin):
    dimension, batch, device = 8, 4, "cpu"

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255

    def features(self, prepared: Tensor) -> Tensor:
        return self.conv(prepared).mean((2, 3))


def translation_backbones(task: str, seed: int = 0) -> TranslationBackbones:
    return TranslationBackbones(
        features=Features("tiny-inception", seed),
        depth=Depth("tiny-dpt", seed) if task == "depth" else None,
        segmentation=Segmentation("tiny-deeplab", seed) if task == "segmentation" else None,
    )


def write_open_clip(folder: Path) -> Path:
    """A small model with random weights in open_clip's format; returns `folder`."""
    import open_clip

    vision = {"image_size": 28, "patch_size": 7, "layers": 1, "width": 32, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    return folder
