"""FID, the Frechet distance of two Gaussians fitted to features of images (Heusel et al. 2017), from exact sums.

    |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)),    C with n - 1, as numpy.cov and clean-fid have it.

The sums are exact: neither the order of the images nor their division into batches changes a bit. A feature is rounded
to a multiple of 2^-24 and split into two integers of 17 bits; products and sums of up to 2^18 images then stay below
2^53, where float64 arithmetic on integers does not round. The rounding is far below the network's own float32 error.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

FRACTION_BITS = 24
LOW_BITS = 17
LARGEST = 2.0**10
MOST_IMAGES = 2**18
_OUTER = ("high", "cross", "low")


@dataclass(frozen=True, kw_only=True)
class FeatureStatistics:
    """The Gaussian of one set of images: mean (D,) and covariance (D, D), float64 on the CPU.

    images: how many it was fitted to, None where that isn't known.
    """

    mean: Tensor
    covariance: Tensor
    images: int | None


class FeatureSums:
    """n, the sum and the sum of outer products of features (D,), the latter in three parts (see the module).

    device: where updates are computed; what comes in is moved there.

    >>> sums = FeatureSums(2)
    >>> sums.update(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
    >>> sums.update(torch.tensor([[1.0, 1.0]]))
    >>> sums.images, sums.statistics().mean
    (3, tensor([1., 1.], dtype=torch.float64))
    """

    def __init__(self, dimension: int, device: str = "cpu") -> None:
        self.dimension = dimension
        self.images = 0
        shapes = {"sum": (dimension,)} | {name: (dimension, dimension) for name in _OUTER}
        self.parts = {name: torch.zeros(s, dtype=torch.float64, device=device) for name, s in shapes.items()}

    def update(self, features: Tensor) -> None:
        """Add a batch (B, D). Raises ValueError for what is not finite or not below 1024, and beyond 2^18 images."""
        if features.ndim != 2 or features.shape[1] != self.dimension:
            raise ValueError(f"features {tuple(features.shape)} must be (B, {self.dimension})")
        if not (features.abs() < LARGEST).all():  # NaN fails too
            raise ValueError(f"features must be finite and below {LARGEST:.0f}: look at the network's weights")
        if self.images + len(features) > MOST_IMAGES:
            raise ValueError(f"sums of features are exact for at most {MOST_IMAGES} images")
        self.images += len(features)
        whole = (features.to(self.parts["sum"]) * 2**FRACTION_BITS).round()
        high = (whole / 2**LOW_BITS).floor()
        low = whole - high * 2**LOW_BITS
        self.parts["sum"] += whole.sum(0)
        self.parts["high"].addmm_(high.T, high)
        self.parts["cross"].addmm_(high.T, low)
        self.parts["low"].addmm_(low.T, low)

    def statistics(self) -> FeatureStatistics:
        """Of the images so far, at least one."""
        parts = {name: value.cpu() for name, value in self.parts.items()}
        mean = parts["sum"] / 2**FRACTION_BITS / self.images
        cross = parts["cross"] + parts["cross"].T
        outer = parts["high"] * 2 ** (2 * LOW_BITS) + cross * 2**LOW_BITS + parts["low"]
        outer = outer / 2 ** (2 * FRACTION_BITS)
        covariance = (outer - self.images * mean.outer(mean)) / max(1, self.images - 1)
        return FeatureStatistics(mean=mean, covariance=covariance, images=self.images)


def fid(generated: FeatureStatistics, real: FeatureStatistics) -> float:
    """The distance of two sets of images. Raises ValueError below two images, and for other numbers of features.

    >>> generated, real = FeatureSums(1), FeatureSums(1)
    >>> generated.update(torch.tensor([[0.0], [2.0]]))
    >>> real.update(torch.tensor([[3.0], [5.0]]))
    >>> fid(generated.statistics(), real.statistics())
    9.0
    """
    for each in (generated, real):
        if each.images is not None and each.images < 2:
            raise ValueError(f"FID needs at least 2 images on either side, not {each.images}")
    if generated.mean.shape != real.mean.shape:
        raise ValueError(f"features of {len(generated.mean)} and {len(real.mean)} dimensions have no distance")
    return frechet_distance(generated.mean, generated.covariance, real.mean, real.covariance)


def bias_note(generated: FeatureStatistics, real: FeatureStatistics) -> str | None:
    """Why an FID must not be compared with those of more or fewer images; None where it may be."""
    fewest = min(each.images for each in (generated, real) if each.images is not None)
    if fewest >= len(generated.mean):
        return None
    return (
        f"{fewest} images are fewer than the {len(generated.mean)} features: the covariance is singular and FID biased "
        "upwards; compare only with values of as many images"
    )


def paired_jackknife(generated: Tensor, reference: Tensor) -> tuple[float, list[float]]:
    """FID of features (n, D) and (n, D), row by row of what belongs together, and n FIDs with a row left out of both.

    Their spread is that of the FID. A bootstrap would not do: an image that is drawn twice makes the Gaussian narrower,
    which lifts nearly every replicate above the estimate. Raises ValueError for shapes that differ, and below 3 rows.

    >>> features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> value, left_out = paired_jackknife(features + 1, features)
    >>> round(value, 6), len(left_out)
    (2.0, 4)
    """
    if generated.shape != reference.shape or len(generated) < 3:
        raise ValueError(
            f"features {tuple(generated.shape)} and {tuple(reference.shape)} must be of one shape, three rows at least"
        )

    def distance(rows: Tensor) -> float:
        gaussians = [(each[rows].mean(0), each[rows].T.cov()) for each in (generated.double(), reference.double())]
        return frechet_distance(*gaussians[0], *gaussians[1])

    every = torch.arange(len(generated))
    return distance(every), [distance(every[every != row]) for row in every]


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """Of two Gaussians, means (D,) and covariances (D, D) float64.

    With A = R R^T the eigenvalues of A B are those of the symmetric R^T B R. That needs no complex root of a matrix
    without symmetry, and no constant on the diagonal where A or B is singular.

    >>> mean, covariance = torch.zeros(2).double(), torch.eye(2).double()
    >>> frechet_distance(mean, covariance, mean + 3, 4 * covariance)  # 2 * 3^2 + 2 * (2 - 1)^2
    20.0
    """
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * _positive(values).sqrt()
    trace_of_root = _positive(torch.linalg.eigvalsh(root.T @ covariance_b @ root)).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * trace_of_root
    return max(0.0, distance.item())


def _positive(eigenvalues: Tensor) -> Tensor:
    """What rounding alone can have made of zero becomes zero: its roots, 1e-8 of 1e-16, would add up."""
    tolerance = eigenvalues.abs().max() * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps
    return torch.where(eigenvalues > tolerance, eigenvalues, 0)
