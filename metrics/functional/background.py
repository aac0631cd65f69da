"""PSNR, MSE and SSIM of two images outside an edit mask, as PIE-Bench's released evaluator takes them.

Both images are multiplied by (1 - mask) and compared over the full canvas: masked pixels are black and count, so a
large mask raises every score. That is the protocol's definition, not an oversight here.
"""

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

    >>> masks = torch.tensor([[[[True, False]]]])
    >>> outside(torch.ones(1, 3, 1, 2), masks)[0, 0]
    tensor([[0., 1.]])
    """
    return images * (~masks).to(images.dtype)


def mse(images: Tensor, references: Tensor) -> Tensor:
    """Mean squared error per image: (B, C, H, W) in [0, 1], references too or one for all, to float64 (B,).

    >>> mse(torch.full((2, 3, 8, 8), 0.5), torch.ones(1, 3, 8, 8))
    tensor([0.2500, 0.2500], dtype=torch.float64)
    """
    return (images - references).square().flatten(1).mean(1, dtype=torch.float64)


def psnr(mse_values: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB for data range 1, from the mean squared error; infinite where that is 0.

    >>> psnr(torch.tensor([0.01, 0.0]))
    tensor([20., inf])
    """
    return -10 * torch.log10(mse_values)


def local_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Windowed first and second raw moments of images, each (B, C, H, W): what SSIM needs of one image alone, so that a
    source is filtered once for all its edits."""
    mean, square = _gaussian_filter(images, images.square())
    return mean, square


def ssim(images: Tensor, references: Tensor, reference_moments: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Structural similarity per image (Wang et al. 2004) with an 11 x 11 Gaussian window, data range 1.

    images, references: (B, C, H, W) in [0, 1], sides of at least 6; one reference serves any number of images.
    reference_moments: `local_moments(references)` where the caller has them. Returns (B,).
    Equals torchmetrics 1.9: borders mirrored, the mean over the full canvas.

    >>> from skimage import data  # photographs
    >>> photograph = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255
    >>> ssim(photograph, photograph), ssim(1 - photograph, photograph) < 0
    (tensor([1.]), tensor([True]))
    """
    mean_b, square_b = local_moments(references) if reference_moments is None else reference_moments
    mean, square, product = _gaussian_filter(images, images.square(), images * references)
    means, mean_squares = mean * mean_b, mean.square() + mean_b.square()
    variances = (square - mean.square()).clamp(min=0) + (square_b - mean_b.square()).clamp(min=0)
    luminance = (2 * means + SSIM_C1) / (mean_squares + SSIM_C1)
    structure = (2 * (product - means) + SSIM_C2) / (variances + SSIM_C2)
    return (luminance * structure).flatten(1).mean(1)


def _gaussian_filter(*maps: Tensor) -> list[Tensor]:
    """Each (B, C, H, W) through the window, borders mirrored: two passes of 11 taps instead of one of 121.

    All maps are channels of one image, which is what PyTorch's depthwise convolution on a CPU is fast at.
    """
    stacked = torch.stack(maps)
    planes = F.pad(stacked.flatten(0, 2), (SSIM_RADIUS,) * 4, mode="reflect")[None]
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=planes.dtype, device=planes.device)
    taps = torch.exp(-(offsets / SSIM_SIGMA).square() / 2)
    taps = (taps / taps.sum()).expand(planes.shape[1], 1, 1, -1)
    rows = F.conv2d(planes, taps.transpose(2, 3), groups=planes.shape[1])
    return list(F.conv2d(rows, taps, groups=planes.shape[1]).view(stacked.shape))
