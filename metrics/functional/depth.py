"""RMSE between the depth of an image and a label, both on 0..255.

A network's depth has no unit, and the released evaluators bring it to 0..255 in two ways, which give different numbers:

- "min-max" (EditAR): minimum to 0 and maximum to 255, resized bicubically before that (as transformers' documentation
  of DPT does; the resizing of the released code could not be verified), no rounding;
- "max" (ControlNet++): divided by the maximum, cut to 8 bits, then resized bilinearly by PIL, which rounds to 8 bits.

The label goes from minimum and maximum to 0..255 in both; "max" cuts it to 8 bits as well.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from metrics.scores import Scores

DEPTH_COLUMNS = ("depth_rmse",)
FLAT_LABEL = "the label is flat: it has no range"
FLAT_DEPTH = "the predicted depth is flat: it has no range"


@torch.inference_mode()
def score_depth(depth: Tensor, labels: Tensor, normalisation: str) -> list[Scores]:
    """Root mean squared error per image, on a scale of 0..255.

    depth (B, h, w): what a network gave, of any size; labels (B, H, W): of any scale, also 8-bit maps.
    normalisation: one of NORMALISATIONS. Where the label or the depth has no range, that is said instead of a value.
    Raises ValueError for shapes that don't fit and values that are not finite.

    >>> label = torch.arange(16.0).view(1, 4, 4)
    >>> score_depth(3 * label + 7, label, "min-max")  # depth has no unit
    [{'depth_rmse': 0.0}]
    >>> score_depth(label, torch.zeros(1, 4, 4), "min-max")
    [{'depth_rmse': 'the label is flat: it has no range'}]
    """
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"normalisation {normalisation!r} must be one of {', '.join(NORMALISATIONS)} (--protocol)")
    if labels.ndim != 3 or depth.ndim != 3 or len(labels) != len(depth):
        raise ValueError(f"depth {tuple(depth.shape)} and labels {tuple(labels.shape)} must be (B, h, w) and (B, H, W)")
    scores: list[Scores] = []
    for own, label in zip(depth.float().cpu(), labels.float().cpu(), strict=True):
        for name, values_of in (("depth", own), ("label", label)):
            if not values_of.isfinite().all():
                raise ValueError(f"{name} of image {len(scores)} of the batch has values that are not finite")
        pair = NORMALISATIONS[normalisation](own, label) if label.min() < label.max() else None
        reason = FLAT_LABEL if label.min() == label.max() else FLAT_DEPTH
        scores.append({"depth_rmse": _rmse(*pair) if pair else reason})
    return scores


def _by_range(depth: Tensor, label: Tensor) -> tuple[Tensor, Tensor] | None:
    if depth.min() == depth.max():
        return None
    if depth.shape != label.shape:
        depth = F.interpolate(depth[None, None], size=label.shape, mode="bicubic")[0, 0]
    return _range_to_255(depth), _range_to_255(label)


def _by_maximum(depth: Tensor, label: Tensor) -> tuple[Tensor, Tensor] | None:
    """DPT ends in a ReLU, so that nothing is negative; another network's negative values count as farthest."""
    if depth.max() <= 0:
        return None
    pixels = (depth / depth.max()).clamp(min=0).mul(255).byte().numpy()
    resized = Image.fromarray(pixels).resize((label.shape[1], label.shape[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)), _range_to_255(label).byte()


# Depth (h, w) and label (H, W) to maps (H, W) on 0..255, or None where the depth has no range.
NORMALISATIONS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor] | None]] = {
    "min-max": _by_range,
    "max": _by_maximum,
}


def _range_to_255(values: Tensor) -> Tensor:
    low, high = values.aminmax()
    return (values - low) / (high - low) * 255


def _rmse(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).square().mean().sqrt().item()
