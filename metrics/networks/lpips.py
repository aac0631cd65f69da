"""LPIPS with SqueezeNet 1.1 (Zhang et al. 2018), as torchmetrics computes it for images in [-1, 1]."""

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from editar.io.tensors import read_tensors
from metrics.networks.official import Found, OfficialNetwork

# LPIPS' own shift and scale, for inputs in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
# The seven layers whose outputs are compared end here, counted in torchvision's `squeezenet1_1().features`.
TAPS = (0, 2, 5, 8, 10, 11, 12, 13)
EPSILON = 1e-8


class OfficialLpips(OfficialNetwork):
    """Float32 in either precision: the network is 1% of the work, and small distances are differences of nearly
    equal features, which bfloat16 would bury."""

    def __init__(self, weights: Found, *, device: str = "cpu") -> None:
        from torchvision.models import squeezenet1_1

        super().__init__(weights, "lpips-squeeze", device)
        with torch.device("meta"):
            network = squeezenet1_1(weights=None)
        state = read_tensors(weights.path)
        network.load_state_dict(state, strict=True, assign=True)
        layers = network.features.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)
        self.slices = [layers[start:end] for start, end in pairwise(TAPS)]
        self.heads = [head.to(device) for head in lpips_heads()]
        self.shift = torch.tensor(SHIFT, device=device).view(3, 1, 1)
        self.scale = torch.tensor(SCALE, device=device).view(3, 1, 1)

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [0, 1] to seven tensors (B, C, h, w), of unit length over their channels."""
        x = (images.to(self.shift.device) * 2 - 1 - self.shift) / self.scale
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for part in self.slices:
            x = part(x)
            features.append(x / (x.square().sum(1, keepdim=True) + EPSILON).sqrt())
        return features

    def distance(self, features_a: list[Tensor], features_b: list[Tensor]) -> Tensor:
        """The weighted squared differences, averaged over positions and summed over layers: (B,)."""
        layers = zip(features_a, features_b, self.heads, strict=True)
        return torch.stack([(a - b).square_().mean((2, 3)) @ head for a, b, head in layers]).sum(0)


def lpips_heads() -> list[Tensor]:
    """The published linear heads (v0.1), one (C,) per layer, from the `lpips` package."""
    package = find_spec("lpips")  # found, not imported: the package pulls in much that is not needed
    if package is None or package.origin is None:
        raise ModuleNotFoundError("LPIPS needs the package `lpips` for its published heads: pip install lpips")
    path = Path(package.origin).parent / "weights" / "v0.1" / "squeeze.pth"
    state = read_tensors(path)
    return [state[f"lin{layer}.model.1.weight"].flatten() for layer in range(len(TAPS) - 1)]
