"""Means with bootstrap intervals, and tests of differences. Samples that share a source image are resampled together,
never one by one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

REPLICATES = 2000
TEST_REPLICATES = 10_000  # p-values of many pairs are multiplied by their number, so they have to reach further down
ROWS = 250  # replicates drawn at once
LEVEL = 0.95
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over `n` defined values; `low` and `high` are None where resampling can say nothing.

    `mean` is None where it is undefined, `n` is None for a published number. p: two-sided, of the mean being 0, and
    p_holm the same after Holm's correction for the other tests beside it; both are None where nothing is tested.
    note: what has to be known to read the value, such as why others are undefined.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    p: float | None = None
    p_holm: float | None = None
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
    mean = float(x.mean())
    means = _replicates(x, groups, replicates, seed)
    if means is None:
        return Estimate(mean=mean, n=len(x))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean=mean, low=float(low), high=float(high), n=len(x))


def _replicates(values: np.ndarray, groups: np.ndarray, replicates: int, seed: int) -> np.ndarray | None:
    """Means of bootstrap replicates (R,) as `mean_interval` describes them, None of fewer than two clusters."""
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return None
    totals = np.stack([np.bincount(member, weights=values), np.bincount(member)], axis=1)
    sums, sizes = (times(len(names), replicates, seed) @ totals).T
    return sums / sizes


def paired_difference(
    first: pd.Series, second: pd.Series, clusters: pd.Series, *, test: bool = False, seed: int = SEED
) -> Estimate:
    """Mean of `first - second` over the samples where both are defined; all three are indexed by sample id.

    test: give the p-value too, see `p_value`.
    """
    difference = (first - second).dropna()
    groups = clusters.loc[difference.index]
    estimate = mean_interval(difference, groups, seed=seed)
    if not test or estimate.low is None:
        return estimate
    means = _replicates(difference.to_numpy(), groups.to_numpy(), TEST_REPLICATES, seed)
    return estimate if means is None else replace(estimate, p=p_value(means))


def p_value(replicates: np.ndarray) -> float:
    """Two-sided p-value of a difference being 0, from its bootstrap replicates (R,).

    It is the level at which the percentile interval begins to leave 0 out, so that table and test agree. The observed
    value counts as one replicate on either side (Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    section 4.2), so it never is 0.
    """
    tail = min((replicates <= 0).sum(), (replicates >= 0).sum())
    return min(1.0, 2 * (float(tail) + 1) / (len(replicates) + 1))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (1979): rejecting those below a level keeps the chance of any false one below it.

    None are no tests: they stay and count for nothing.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = largest
    return adjusted


@lru_cache(maxsize=2)
def times(clusters: int, replicates: int, seed: int) -> np.ndarray:
    """(replicates, clusters): how often each replicate draws each cluster. Fewer replicates are the first of more."""
    rng = np.random.default_rng(seed)
    counts = np.empty((replicates, clusters))
    for start in range(0, replicates, ROWS):  # in pieces, for the draws take as much memory again as the counts
        piece = counts[start : start + ROWS]
        draws = rng.integers(clusters, size=piece.shape)
        places = draws + clusters * np.arange(len(piece))[:, None]
        piece[:] = np.bincount(places.ravel(), minlength=piece.size).reshape(piece.shape)
    return counts


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
    if not len(counts):
        return Estimate(mean=None, n=0)
    sums = _by_cluster(counts, draws, clusters)
    here = len(sums[0])
    mean = float(_mean_iou(sums, np.ones((1, here)))[0])
    if here < 2 or np.isnan(mean):
        return Estimate(mean=None if np.isnan(mean) else mean, n=len(counts))
    low, high = np.nanquantile(_mean_iou(sums, times(here, replicates, seed)), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean=mean, low=float(low), high=float(high), n=len(counts))


def mean_iou_difference(
    first: np.ndarray, second: np.ndarray, draws: ArrayLike, clusters: ArrayLike, *, seed: int = SEED
) -> Estimate:
    """Mean IoU of `first` minus that of `second`, counts as in `mean_iou_interval` of the same images in their order.

    Interval and p-value are of replicates that draw the same clusters for both.
    """
    if not len(first):
        return Estimate(mean=None, n=0)
    both = [_by_cluster(counts, draws, clusters) for counts in (first, second)]
    here = len(both[0][0])

    def difference(chosen: np.ndarray) -> np.ndarray:
        one, other = (_mean_iou(sums, chosen) for sums in both)
        return one - other

    mean = float(difference(np.ones((1, here)))[0])
    if here < 2 or np.isnan(mean):
        return Estimate(mean=None if np.isnan(mean) else mean, n=len(first))
    replicates = difference(times(here, TEST_REPLICATES, seed))
    low, high = np.nanquantile(replicates[:REPLICATES], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(mean=mean, low=float(low), high=float(high), n=len(first), p=p_value(replicates))


def _by_cluster(counts: np.ndarray, draws: ArrayLike, clusters: ArrayLike) -> list[np.ndarray]:
    """Of each draw, the counts summed by cluster (K, 3, C)."""
    which, groups = np.asarray(draws), np.asarray(clusters)
    names, member = np.unique(groups, return_inverse=True)
    sums = []
    for draw in np.unique(which):
        by_cluster = np.zeros((len(names), *counts.shape[1:]))
        np.add.at(by_cluster, member[which == draw], counts[which == draw])
        sums.append(by_cluster)
    return sums


def _mean_iou(sums: list[np.ndarray], chosen: np.ndarray) -> np.ndarray:
    """(R,) of each draw's sums by cluster (K, 3, C), each cluster taken as often as `chosen` (R, K) says; NaN where no
    class occurs."""
    means = []
    for by_cluster in sums:
        both, predicted, labelled = np.moveaxis(np.tensordot(chosen, by_cluster, 1), 1, 0)
        union = predicted + labelled - both
        iou = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
        present = (union > 0).sum(1)
        means.append(np.divide(iou.sum(1), present, out=np.full(len(iou), np.nan), where=present > 0))
    return np.mean(means, axis=0)
