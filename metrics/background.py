"""PSNR, MSE and SSIM of two images outside an edit mask, as PIE-Bench's released evaluator takes them.

Both images are multiplied by (1 - mask) and compared over the full canvas: masked pixels are black and count, so a
large mask raises every score. That is the protocol's definition, not an oversight here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# The defaults of torchmetrics' SSIM: sigma 1.5 cut at 3.5 sigma gives 11 taps; k1 = 0.01, k2 = 0.03, data range 1.
SSIM_SIGMA = 1.5
SSIM_RADIUS = 5
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2


def outside(images: Tensor, masks: Tensor) -> Tensor:
    """The images with the masked pixels black.

    images (B, 3, H, W) in [0, 1]; masks (B, 1, H, W) bool, True where edited.
    """
    return images * (~masks).to(images.dtype)


def mse(images: Tensor, references: Tensor) -> Tensor:
    """Mean squared error per image: (B, C, H, W) twice, range [0, 1], to float64 (B,)."""
    return (images - references).square().flatten(1).mean(1, dtype=torch.float64)


def psnr(mse_values: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB for data range 1, from the mean squared error; infinite where that is 0."""
    return -10 * torch.log10(mse_values)


@dataclass(frozen=True)
class LocalMoments:
    """Windowed first and second raw moments of images, each (B, C, H, W)."""

    mean: Tensor
    square: Tensor


def local_moments(images: Tensor) -> LocalMoments:
    """What SSIM needs of one image alone, so that a source is filtered once for all its edits."""
    batch = images.shape[0]
    filtered = _gaussian_filter(torch.cat([images, images.square()]))
    return LocalMoments(mean=filtered[:batch], square=filtered[batch:])


def ssim(images: Tensor, references: Tensor, reference_moments: LocalMoments | None = None) -> Tensor:
    """Structural similarity per image (Wang et al. 2004) with an 11 x 11 Gaussian window, data range 1.

    images, references: (B, C, H, W) in [0, 1], sides of at least 6; reference_moments: `local_moments(references)`
    where the caller has them. Returns (B,). Equals torchmetrics 1.9: mirrored borders, the mean over the full canvas.
    """
    mine = local_moments(images)
    theirs = local_moments(references) if reference_moments is None else reference_moments
    product = _gaussian_filter(images * references)
    mean_product = mine.mean * theirs.mean
    mean_squares = mine.mean.square() + theirs.mean.square()
    variances = (mine.square - mine.mean.square()).clamp(min=0) + (theirs.square - theirs.mean.square()).clamp(min=0)
    luminance = (2 * mean_product + SSIM_C1) / (mean_squares + SSIM_C1)
    structure = (2 * (product - mean_product) + SSIM_C2) / (variances + SSIM_C2)
    return (luminance * structure).flatten(1).mean(1)


def _gaussian_filter(images: Tensor) -> Tensor:
    """Separable Gaussian window with mirrored borders: two passes of 11 taps instead of one of 121."""
    channels = images.shape[1]
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=images.dtype, device=images.device)
    taps = torch.exp(-(offsets / SSIM_SIGMA).square() / 2)
    taps = taps / taps.sum()
    padded = F.pad(images, (SSIM_RADIUS,) * 4, mode="reflect")
    rows = F.conv2d(padded, taps.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(rows, taps.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
