"""Edge maps of images, and how alike two of them are: MS-SSIM, SSIM and F1 per image."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from metrics.functional.background import ssim
from metrics.scores import Scores

EDGE_COLUMNS = ("ms_ssim", "ssim", "f1")
# torchmetrics halves an image four times and refuses it where the window of 11 pixels no longer fits 16 times.
MS_SSIM_SIDE = 11 * 16

TOO_SMALL = f"a side is below {MS_SSIM_SIDE} pixels: MS-SSIM has no fifth scale"
NO_EDGES = "neither map has an edge: F1 is 0 / 0"


def kornia_edges(images: Tensor) -> Tensor:
    """Canny edges by kornia, thresholds 0.1 and 0.2, as both released evaluators take them.

    Images (B, 3, H, W) in [0, 1] to (B, 1, H, W) of 0 and 1. kornia 0.9 keeps one pixel of a tied pair across a step,
    where the versions that the published numbers were made with kept none.
    """
    from kornia.filters import canny

    return canny(images, 0.1, 0.2)[1]


def cv2_edges(images: Tensor) -> Tensor:
    """Canny edges by OpenCV, thresholds 100 and 200 on 8 bits, as both papers state them.

    8-bit images (B, 3, H, W) in [0, 1] to (B, 1, H, W) of 0 and 1. The channel with the largest gradient counts.

    >>> image = torch.zeros(1, 3, 8, 8)
    >>> image[..., 4:] = 1  # a step
    >>> cv2_edges(image)[0, 0, 3]
    tensor([0., 0., 0., 1., 0., 0., 0., 0.])
    >>> from skimage import data  # photographs
    >>> photograph = torch.from_numpy(data.coffee()).permute(2, 0, 1)[None] / 255
    >>> round(cv2_edges(photograph).mean().item(), 2)  # the share of edge pixels
    0.11
    """
    import cv2

    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).flip(-1).contiguous().cpu().numpy()
    edges = [torch.from_numpy(cv2.Canny(image, 100, 200)) for image in pixels]
    return (torch.stack(edges)[:, None] / 255).to(images)


EDGES: dict[str, Callable[[Tensor], Tensor]] = {"kornia": kornia_edges, "cv2": cv2_edges}


@torch.inference_mode()
def score_edges(edges: Tensor, references: Tensor) -> list[Scores]:
    """MS-SSIM, SSIM and F1 of EDGE_COLUMNS for edge maps (B, 1, H, W) of 0 and 1.

    F1 is that of edge pixels, with no tolerance for place. It is undefined where neither map has an edge (the released
    evaluator's torchmetrics says 0 for these), MS-SSIM for images below 176 x 176.
    Raises ValueError for other shapes and values.

    >>> edges = torch.eye(32)[None, None]
    >>> [scores] = score_edges(edges, edges)
    >>> scores["f1"], scores["ms_ssim"]
    (1.0, 'a side is below 176 pixels: MS-SSIM has no fifth scale')
    """
    for name, maps in (("edges", edges), ("references", references)):
        if maps.ndim != 4 or maps.shape[1] != 1 or maps.shape != references.shape:
            raise ValueError(f"{name} {tuple(maps.shape)} must be (B, 1, H, W), and both maps of one shape")
        if not ((maps == 0) | (maps == 1)).all():
            raise ValueError(f"{name} must be 0 or 1: edge maps of 0 and 255 are divided by 255 first")
    large = min(edges.shape[-2:]) >= MS_SSIM_SIDE
    multiscale = _ms_ssim(edges, references).tolist() if large else [TOO_SMALL] * len(edges)
    rows = zip(multiscale, ssim(edges, references).tolist(), f1(edges, references).tolist(), strict=True)
    return [{"ms_ssim": a, "ssim": b, "f1": NO_EDGES if math.isnan(c) else c} for a, b, c in rows]


def f1(edges: Tensor, references: Tensor) -> Tensor:
    """2 TP / (2 TP + FP + FN) of edge pixels per image: maps (B, 1, H, W) of 0 and 1 to float64 (B,), NaN for 0 / 0.

    >>> edges, reference = torch.tensor([[[[1.0, 1.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0, 1.0]]]])
    >>> f1(edges, reference)
    tensor([0.5000], dtype=torch.float64)
    """
    both = (edges * references).flatten(1).sum(1, dtype=torch.float64)
    either = (edges + references).flatten(1).sum(1, dtype=torch.float64)
    return 2 * both / either


def _ms_ssim(edges: Tensor, references: Tensor) -> Tensor:
    """torchmetrics' defaults, among them that negative contrasts count as 0; image by image to save memory."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

    pairs = zip(edges.split(1), references.split(1), strict=True)
    return torch.stack([ms_ssim(own, other, data_range=1.0) for own, other in pairs])
