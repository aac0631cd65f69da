"""The perception network on disk, and as the backbones that the miniature suite scores with."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from benchmarks.miniature.evaluate.perception import DENSE_HEADS, Perception, PerceptionConfig
from editar.io.digests import file_digest
from editar.io.tensors import write_safetensors
from metrics.networks.backbones import Backbones, TranslationBackbones, check_precision

NAME = "miniature-perception"


def save_perception(network: Perception, path: Path) -> None:
    """Write the weights as float16, with the configuration inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().cpu().to(torch.float16 if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in network.state_dict().items()
    }
    write_safetensors(path, state, {"config": json.dumps(dataclasses.asdict(network.config))})


def load_perception(path: Path) -> tuple[Perception, str]:
    """The network in evaluation mode, float32, on the CPU; and the file's digest (sha256, hex).

    Raises FileNotFoundError or ValueError that name the file and the remedy.
    """
    remedy = "restore it from the repository, or make it with `python -m benchmarks.miniature.build`"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the miniature's scoring network is not there; {remedy}")
    try:
        with safe_open(path, framework="pt") as file:
            config = PerceptionConfig(**json.loads(file.metadata()["config"]))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the miniature's scoring network ({error}); {remedy}") from error
    network = Perception(config)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False), file_digest(path)


class _Backbone:
    """One use of the network. `digest` is that of the whole file."""

    official = False

    def __init__(self, network: Perception, digest: str, role: str, device: str, precision: str) -> None:
        self.network, self.digest, self.name = network, digest, f"{NAME}-{role}"
        self.device, self.kind, self.bfloat16 = device, torch.device(device).type, precision == "bfloat16"

    def _maps(self, images: Tensor) -> list[Tensor]:
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.bfloat16):
            return [level.float() for level in self.network.features(images.to(self.device) * 2 - 1)]


class _Structure(_Backbone):
    def keys(self, images: Tensor) -> Tensor:
        """Images (B, 3, 64, 64) in [0, 1] -> the features at stride 4 as tokens, (B, 256, 96)."""
        return self._maps(images)[2].flatten(2).transpose(1, 2)


class _Perceptual(_Backbone):
    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, 64, 64) in [0, 1] -> feature maps of unit length at every place."""
        return [F.normalize(level, dim=1) for level in self._maps(images)]

    def distance(self, features_a: list[Tensor], features_b: list[Tensor]) -> Tensor:
        """Mean squared difference of the unit features, summed over the levels, (B,): LPIPS without learned weights."""
        levels = zip(features_a, features_b, strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in levels]).sum(0)


class _ImageText(_Backbone):
    def image_embedding(self, images: Tensor) -> Tensor:
        """Images (B, 3, 64, 64) in [0, 1] -> unit embeddings (B, 128)."""
        maps = self._maps(images)
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.bfloat16):
            return self.network.embed_images(maps).float()

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """Captions -> unit embeddings (B, 128)."""
        ids = self.network.text.tokenize(texts).to(self.device)
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.bfloat16):
            return self.network.embed_texts(ids).float()

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        return [bool(self.network.text.cut_off(text)) for text in texts]


class _Depth(_Backbone):
    def depth(self, images: Tensor) -> Tensor:
        """Images (B, 3, 64, 64) in [0, 1] -> nearness (B, 32, 32)."""
        return self.network.predict(self._maps(images))["depth"][:, 0].float()


class _Segmentation(_Backbone):
    classes = len(DENSE_HEADS["segmentation"])

    def labels(self, images: Tensor) -> Tensor:
        """Images (B, 3, 64, 64) in [0, 1] -> train ids (B, 64, 64), the logits resized as DeepLab's are."""
        logits = self.network.predict(self._maps(images))["segmentation"].float()
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear").argmax(1)


class _Features(_Backbone):
    """The deepest features, averaged over the image, as Inception's are."""

    batch = 32

    @property
    def dimension(self) -> int:
        return self.network.config.widths[-1]

    def prepare(self, image: Image.Image) -> np.ndarray:
        """An image of 64 x 64 to float32 (3, 64, 64) in [0, 1]."""
        return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255

    @torch.inference_mode()
    def features(self, prepared: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [0, 1] -> (B, 112)."""
        return self._maps(prepared)[-1].mean((2, 3))


def load_backbones(path: Path, device: str = "cpu", precision: str = "float32") -> Backbones:
    """The stand-ins for DINO (structure), LPIPS (perceptual) and CLIP, all from one weights file. LPIPS' is float32 in
    either precision, as the official one."""
    check_precision(precision)
    network, digest = load_perception(path)
    network = network.to(device)
    return Backbones(
        structure=_Structure(network, digest, "structure", device, precision),
        perceptual=_Perceptual(network, digest, "perceptual", device, "float32"),
        clip=_ImageText(network, digest, "image-text", device, precision),
        precision=precision,
    )


def load_translation_backbones(path: Path, task: str, device: str = "cpu") -> TranslationBackbones:
    """The stand-ins for Inception (features), DPT (depth) and DeepLab (segmentation), all from one weights file."""
    network, digest = load_perception(path)
    network = network.to(device)
    return TranslationBackbones(
        features=_Features(network, digest, "features", device, "float32"),
        depth=_Depth(network, digest, "depth", device, "float32") if task == "depth" else None,
        segmentation=(
            _Segmentation(network, digest, "segmentation", device, "float32") if task == "segmentation" else None
        ),
    )
