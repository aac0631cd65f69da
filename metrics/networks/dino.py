"""DINO ViT-B/8 (Caron et al. 2021) for the structure distance: the keys of block 11."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import normalize

from editar.io.tensors import read_tensors
from metrics.networks.official import Found, OfficialNetwork
from metrics.networks.vit import KeyHead, VisionTransformer, ViTConfig, batch_size, fold_constants, load

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DINO_VITB8_CONFIG = ViTConfig(width=768, depth=12, heads=12, eps=1e-6, patch=8)


class OfficialDino(OfficialNetwork):
    """Keys as the released PIE-Bench evaluator takes them.

    Its quirk is kept: images go in as 0..255, not divided by 255, before ImageNet's mean and deviation (which are for
    0..1) are applied. antialias: off reproduces rows made with torchvision before 0.17, whose tensor resize had none.
    """

    def __init__(
        self,
        weights: Found,
        *,
        device: str = "cpu",
        precision: str = "float32",
        antialias: bool = True,
        config: ViTConfig = DINO_VITB8_CONFIG,
    ) -> None:
        super().__init__(weights, "dino-vitb8", device)
        self.antialias = antialias
        self.side = config.side
        self.batch = batch_size(config, device)
        state = read_tensors(weights.path)
        with torch.device("meta"):
            self.network = VisionTransformer(config, KeyHead(config))
        load(self.network, fold_constants(_translate(state, config), config), device, precision)

    def keys(self, images: Tensor) -> Tensor:
        """Square 8-bit images (B, 3, S, S) in [0, 1] to keys (B, 785, 768): all tokens, class token first."""
        height, width = images.shape[-2:]
        if height != width:
            raise ValueError(f"structure distance is defined for square images, not {width} x {height}")
        parts = [self.network(self._prepare(part)) for part in images.to(self.device).split(self.batch)]
        return torch.cat(parts)

    def _prepare(self, images: Tensor) -> Tensor:
        pixels = (images * 255).round()  # exactly the integers of the 8-bit image
        if pixels.shape[-1] != self.side:
            pixels = F.interpolate(pixels, size=(self.side, self.side), mode="bilinear", antialias=self.antialias)
        return normalize(pixels, IMAGENET_MEAN, IMAGENET_STD)


def _translate(official: dict[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    """Official names to ours; of the last block only the layer norm and the keys remain."""
    last = f"blocks.{config.depth - 1}."
    state = {}
    for name, value in official.items():
        if name.startswith(last + "norm1."):
            state["head.norm." + name.rpartition(".")[2]] = value
        elif name.startswith(last + "attn.qkv."):
            state["head.key." + name.rpartition(".")[2]] = value[config.width : 2 * config.width]
        elif not name.startswith((last, "norm.")):
            state[name.replace("patch_embed.proj.", "patch_embed.")] = value
    return state
