"""Means with bootstrap intervals. Samples that share a source image are resampled together, never one by one."""

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

REPLICATES = 2000
LEVEL = 0.95
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over `n` defined values; `low` and `high` are None where resampling can say nothing.

    `mean` is None where it is undefined, `n` is None for a published number. note: what has to be known to read the
    value, such as why others are undefined.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""

    def scaled(self, factor: float) -> "Estimate":
        mean, low, high = (None if x is None else x * factor for x in (self.mean, self.low, self.high))
        return replace(self, mean=mean, low=low, high=high)


def mean_interval(
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = SEED,
) -> Estimate:
    """Mean of the values that are defined (not NaN), with a percentile interval of the cluster bootstrap.

    `values` and `clusters` are (n,). A replicate draws as many clusters as there are, with replacement, and takes the
    mean of all their values, so a cluster weighs by its number of values. Fewer than two clusters, or an infinite value
    (the PSNR of two equal images), give no interval. The order of the values has no influence.
    """
    x, groups = np.asarray(values, dtype=np.float64), np.asarray(clusters)
    if x.ndim != 1 or x.shape != groups.shape:
        raise ValueError(f"one cluster for each value: got {x.shape} values and {groups.shape} clusters")
    defined = ~np.isnan(x)
    x, groups = x[defined], groups[defined]
    if not len(x):
        return Estimate(mean=None, n=0)
    if not np.isfinite(x).all():
        signs = {float(sign) for sign in np.sign(x[np.isinf(x)])}  # +inf and -inf together have no mean
        return Estimate(mean=float("inf") * signs.pop() if len(signs) == 1 else None, n=len(x))
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return Estimate(mean=float(x.mean()), n=len(x))
    sums = np.bincount(member, weights=x)
    sizes = np.bincount(member)
    draws = np.random.default_rng(seed).integers(len(names), size=(replicates, len(names)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean=float(sums.sum() / sizes.sum()), low=float(low), high=float(high), n=len(x))


def paired_difference(first: pd.Series, second: pd.Series, clusters: pd.Series, *, seed: int = SEED) -> Estimate:
    """Mean of `first - second` over the samples where both are defined; all three are indexed by sample id."""
    difference = (first - second).dropna()
    return mean_interval(difference, clusters.loc[difference.index], seed=seed)


def jackknife_interval(value: float, left_out: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """`value` with a normal interval, of whose standard error the jackknife is the measure.

    left_out (n,): the value without each of the n clusters in turn; fewer than two give no interval.
    """
    x = np.asarray(left_out, dtype=np.float64)
    if len(x) < 2:
        return Estimate(mean=value, n=len(x))
    error = float(np.sqrt(np.square(x - x.mean()).sum() * (len(x) - 1) / len(x)))
    margin = NormalDist().inv_cdf((1 + level) / 2) * error
    return Estimate(mean=value, low=value - margin, high=value + margin, n=len(x))


def mean_iou_interval(
    counts: np.ndarray,
    draws: ArrayLike,
    clusters: ArrayLike,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = SEED,
) -> Estimate:
    """Mean IoU of all images together, with a percentile interval of the cluster bootstrap.

    counts (n, 3, C): of each image, the pixels of each class in both maps, in the prediction, in the label. IoU of a
    class is that of all pixels; the mean is over the classes that occur, then over the draws. draws, clusters: (n,). A
    replicate draws clusters as in `mean_interval`, and takes the mean IoU of their images.
    """
    which, groups = np.asarray(draws), np.asarray(clusters)
    if not len(counts):
        return Estimate(mean=None, n=0)
    names, member = np.unique(groups, return_inverse=True)
    sums = []  # of each draw, by cluster (K, 3, C)
    for draw in np.unique(which):
        by_cluster = np.zeros((len(names), *counts.shape[1:]))
        np.add.at(by_cluster, member[which == draw], counts[which == draw])
        sums.append(by_cluster)
    mean = float(_mean_iou(sums, np.ones((1, len(names))))[0])
    if len(names) < 2 or np.isnan(mean):
        return Estimate(mean=None if np.isnan(mean) else mean, n=len(counts))
    chosen = np.random.default_rng(seed).integers(len(names), size=(replicates, len(names)))
    times = np.stack([np.bincount(each, minlength=len(names)) for each in chosen])
    low, high = np.nanquantile(_mean_iou(sums, times), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean=mean, low=float(low), high=float(high), n=len(counts))


def _mean_iou(sums: list[np.ndarray], times: np.ndarray) -> np.ndarray:
    """(R,) of each draw's sums by cluster (K, 3, C), each cluster taken `times` (R, K); NaN where no class occurs."""
    means = []
    for by_cluster in sums:
        both, predicted, labelled = np.moveaxis(np.tensordot(times, by_cluster, 1), 1, 0)
        union = predicted + labelled - both
        iou = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
        present = (union > 0).sum(1)
        means.append(np.divide(iou.sum(1), present, out=np.full(len(iou), np.nan), where=present > 0))
    return np.mean(means, axis=0)
