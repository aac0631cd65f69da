"""KID, the kernel distance of two sets of features of images (Binkowski et al. 2018), as torchmetrics and clean-fid
define it: the mean over random subsets of the unbiased squared MMD with the kernel (x . y / D + 1)^3.

Unlike FID it has no bias from few images, and may be below 0. It needs the features themselves, 8 KB an image with the
official network, which take memory in proportion to the images; FID's sums don't.
"""

import torch
from torch import Tensor

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 0


def kernel_distance(generated: Tensor, real: Tensor) -> float:
    """KID of features (n, D) and (m, D), over subsets that depend on n and m alone.

    100 subsets of 1000, or of the smaller set's size; where both sets have that size every subset is the whole, and one
    is enough. Computed in float64. Raises ValueError for shapes that don't fit and for fewer than 2 images on a side.

    >>> features = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    >>> kernel_distance(features[:100], features[100:]) < 0.1 < kernel_distance(features[:100], features[100:] + 1)
    True
    """
    from torchmetrics.image.kid import poly_mmd

    size = min(SUBSET_SIZE, len(generated), len(real))
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1] or size < 2:
        raise ValueError(
            f"KID needs features (n, D) and (m, D) of at least 2 images each, not {tuple(generated.shape)} and "
            f"{tuple(real.shape)}"
        )
    generator = torch.Generator().manual_seed(SEED)
    subsets = 1 if size == len(generated) == len(real) else SUBSETS

    def subset(features: Tensor) -> Tensor:
        return features[torch.randperm(len(features), generator=generator)[:size]].double()

    values = [poly_mmd(subset(real), subset(generated)) for _ in range(subsets)]
    return torch.stack(values).mean().item()
