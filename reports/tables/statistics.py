"""Means with bootstrap intervals, and tests of differences. Samples that share a source image are resampled together,
never one by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any

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
    test: bool = False,
) -> Estimate:
    """Mean of the values that are defined (not NaN), with a percentile interval of the cluster bootstrap.

    `values` and `clusters` are (n,). A replicate draws as many clusters as there are, with replacement, and takes the
    mean of all their values, so a cluster weighs by its number of values. Fewer than two clusters, or an infinite value
    (the PSNR of two equal images), give no interval. The order of the values has no influence. test: give the p-value
    too, see `p_value`.
    """
    x, groups = np.asarray(values, dtype=np.float64), np.asarray(clusters)
    if x.ndim != 1 or x.shape != groups.shape:
        raise ValueError(f"one cluster for each value: got {x.shape} values and {groups.shape} clusters")
    defined = ~np.isnan(x)
    x, groups = x[defined], groups[defined]
    if not len(x):
        return Estimate(mean=None, n=0)
    with np.errstate(invalid="ignore"):
        mean = float(x.mean())
    if not np.isfinite(mean):
        return Estimate(mean=None if np.isnan(mean) else mean, n=len(x))  # +inf and -inf together have no mean
    names, member = np.unique(groups, return_inverse=True)
    totals = np.stack([np.bincount(member, weights=x), np.bincount(member)], axis=1)

    def means(chosen: np.ndarray) -> np.ndarray:
        sums, sizes = (chosen @ totals).T
        return sums / sizes

    return _bootstrapped(
        Estimate(mean=mean, n=len(x)), means, len(names), level=level, replicates=replicates, seed=seed, test=test
    )


def _bootstrapped(
    estimate: Estimate,
    statistic: Callable[[np.ndarray], np.ndarray],
    clusters: int,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = SEED,
    test: bool = False,
) -> Estimate:
    """With a percentile interval, and a p-value if `test`; as it is where there are fewer than two clusters.

    statistic: from how often each replicate draws each cluster (R, K) to its values (R,).
    """
    if clusters < 2:
        return estimate
    values = statistic(times(clusters, TEST_REPLICATES if test else replicates, seed))
    low, high = np.nanquantile(values[:replicates], [(1 - level) / 2, (1 + level) / 2])
    return replace(estimate, low=float(low), high=float(high), p=p_value(values) if test else None)


def paired_difference(first: pd.Series, second: pd.Series, clusters: pd.Series, *, test: bool = False) -> Estimate:
    """Mean of `first - second` over the samples where both are defined; all three are indexed by sample id.

    test: give the p-value too, see `p_value`.
    """
    difference = (first - second).dropna()
    return mean_interval(difference, clusters.loc[difference.index], test=test)


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
    counts: np.ndarray, draws: ArrayLike, clusters: ArrayLike, *, replicates: int = REPLICATES
) -> Estimate:
    """Mean IoU of all images together, with a percentile interval of the cluster bootstrap.

    counts (n, 3, C): of each image, the pixels of each class in both maps, in the prediction, in the label. IoU of a
    class is that of all pixels; the mean is over the classes that occur, then over the draws. draws, clusters: (n,). A
    replicate draws clusters as in `mean_interval`, and takes the mean IoU of their images.
    """
    sums = _by_cluster(counts, draws, clusters)
    return _of_all_images(lambda chosen: _mean_iou(sums, chosen), counts, clusters, replicates=replicates)


def mean_iou_difference(first: np.ndarray, second: np.ndarray, draws: ArrayLike, clusters: ArrayLike) -> Estimate:
    """Mean IoU of `first` minus that of `second`, counts as in `mean_iou_interval` of the same images in their order.

    Interval and p-value are of replicates that draw the same clusters for both.
    """
    one, other = (_by_cluster(counts, draws, clusters) for counts in (first, second))
    return _of_all_images(lambda chosen: _mean_iou(one, chosen) - _mean_iou(other, chosen), first, clusters, test=True)


def _of_all_images(
    statistic: Callable[[np.ndarray], np.ndarray], counts: np.ndarray, clusters: ArrayLike, **how: Any
) -> Estimate:
    """None where no class occurs. statistic, how: see `_bootstrapped`."""
    if not len(counts):
        return Estimate(mean=None, n=0)
    number = len(np.unique(np.asarray(clusters)))
    mean = float(statistic(np.ones((1, number)))[0])
    if np.isnan(mean):
        return Estimate(mean=None, n=len(counts))
    return _bootstrapped(Estimate(mean=mean, n=len(counts)), statistic, number, **how)


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
    return np.mean([mean_iou(np.tensordot(chosen, by_cluster, 1)) for by_cluster in sums], axis=0)


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """(n,) of counts (n, 3, C), float, as in `mean_iou_interval`: over the classes that occur, NaN where none does."""
    both, predicted, labelled = np.moveaxis(counts, 1, 0)
    union = predicted + labelled - both
    iou = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    present = (union > 0).sum(1)
    return np.divide(iou.sum(1), present, out=np.full(len(iou), np.nan), where=present > 0)
