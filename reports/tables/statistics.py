"""Means with intervals, and tests of differences. Samples that share a source image are taken together, never one by
one: they are a cluster. How often the intervals cover and the tests err: reports/coverage.md."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from reports.tables.significance import sign_flip_test

REPLICATES = 2000
ROWS = 250  # replicates drawn at once
ROUNDING = 1e-6  # what is left of a standard error, relatively, where float64 sums of squares should cancel to 0
LEVEL = 0.95
SEED = 0
# With fewer clusters the intervals cover less than 93% in simulation: of the distributions in reports/coverage.md, or
# of a column of the miniature's committed rows whose images are drawn again.
FEWEST = 60
FEWEST_YES_NO = 10  # of means of 0 and 1; and of differences of those, how many have to differ
FEWEST_MEAN_IOU = 240  # whose classes may hang on few images each
YES_NO = (-1, 0, 1)
TOO_FEW = (
    f"No interval for fewer than {FEWEST} source images ({FEWEST_YES_NO} for a mean of yes or no, {FEWEST_MEAN_IOU} "
    f"for mIoU), nor for a difference where the methods differ in fewer than {FEWEST} of them ({FEWEST_YES_NO}), nor "
    "where all values are equal and no yes or no: it would cover the true mean too seldom (reports/coverage.md)."
)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over `n` defined values; `low` and `high` are None where there is no interval.

    `mean` is None where it is undefined, `n` is None for a published number. p: two-sided, of the mean being 0, and
    p_holm the same after Holm's correction for the other tests beside it; p_best: p_holm of the difference from the
    best mean of its column, 1 for the best itself. All are None where nothing is tested. too_few: whether too few
    clusters are the reason that there is no interval. note: what has to be known to read the value, such as why others
    are undefined.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    p: float | None = None
    p_holm: float | None = None
    p_best: float | None = None
    too_few: bool = False
    note: str = ""

    def scaled(self, factor: float) -> "Estimate":
        mean, low, high = (None if x is None else x * factor for x in (self.mean, self.low, self.high))
        return replace(self, mean=mean, low=low, high=high)


# From how often each replicate draws each cluster (R, K) to a statistic and its standard error, (R,) each.
Statistic = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def mean_interval(
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = SEED,
    fewest: int | None = None,
    differences: bool = False,
    share: bool = False,
) -> Estimate:
    """Mean of the values that are defined (not NaN), with the interval of `studentized`; of values of which some are 0
    and the others 1, with that of `_share_interval`.

    `values` and `clusters` are (n,). A replicate draws as many clusters as there are, with replacement, and takes the
    mean of all their values, so a cluster weighs by its number of values. There is no interval for fewer than `fewest`
    clusters, by default as the constants say, for values that are all equal, and for infinite ones (the PSNR of two
    equal images). differences: the values are differences of two methods, and as many clusters have to have one other
    than 0. share: values that are all 0 or all 1 are answers of yes or no too, and have an interval. The order of the
    values has no influence.
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
    totals, sizes = np.bincount(member, weights=x), np.bincount(member)
    estimate = Estimate(mean=mean, n=len(x))
    yes_no = np.isin(x, YES_NO).all()
    equal = x.min() == x.max()
    is_share = not differences and bool(np.isin(x, (0, 1)).all()) and (share or not equal)
    needed = fewest or (FEWEST_YES_NO if yes_no and not differences else FEWEST)
    differing = fewest or (FEWEST_YES_NO if yes_no else FEWEST)
    few = len(names) < max(needed, 2) or (differences and len(np.unique(member[x != 0])) < differing)
    if few or (equal and not is_share):
        return replace(estimate, too_few=True)
    if is_share:
        return _share_interval(estimate, mean, totals, sizes, level)
    return studentized(
        estimate, _mean_statistic(mean, totals, sizes), len(names), level=level, replicates=replicates, seed=seed
    )


def _share_interval(estimate: Estimate, share: float, totals: np.ndarray, sizes: np.ndarray, level: float) -> Estimate:
    """Clopper and Pearson's exact interval of a share, for the number of independent values that would leave it as
    uncertain as these clusters do (Korn and Graubard 1998): a bootstrap knows nothing of what none of a few replicates
    drew. totals, sizes: of the clusters."""
    from scipy.special import betaincinv, stdtrit

    n, clusters = int(sizes.sum()), len(sizes)
    variance = np.square(totals - share * sizes).sum() / n**2
    effective = min(share * (1 - share) / variance, n) if variance > 0 else clusters
    upper = (1 + level) / 2
    effective *= (stdtrit(n - 1, upper) / stdtrit(clusters - 1, upper)) ** 2
    yes, no = effective * share, effective * (1 - share)
    low = float(betaincinv(yes, no + 1, 1 - upper)) if yes else 0.0
    high = float(betaincinv(yes + 1, no, upper)) if no else 1.0
    return replace(estimate, low=low, high=high)


def _mean_statistic(mean: float, totals: np.ndarray, sizes: np.ndarray) -> Statistic:
    """The mean as a ratio of sums over clusters, with the standard error of its linearization.

    A replicate's error is of the residuals around its own mean, which differ from those around `mean`, whose sums are
    taken, by a multiple of the sizes.
    """
    around = totals - mean * sizes
    products = np.stack([around, sizes, around**2, around * sizes, sizes**2], axis=1)
    clusters = len(sizes)

    def statistic(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        off, weight, squares, mixed, weights = (chosen @ products).T
        by = off / weight
        variance = np.maximum(squares - 2 * by * mixed + by**2 * weights, 0) / weight**2
        return mean + by, np.sqrt(variance * (clusters / (clusters - 1)))

    return statistic


def studentized(
    estimate: Estimate,
    statistic: Statistic,
    clusters: int,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = SEED,
) -> Estimate:
    """`estimate` with the wider, on either side, of the bootstrap-t interval and Student's t interval.

    Bootstrap-t (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5): quantiles of the
    replicates' distances from the mean in their own standard errors take the place of Student's, so the interval
    reaches further on the side where a few large values may be missing. Student's with clusters - 1 degrees of freedom
    is the correction for few clusters. No interval where the replicates give no bound, or where nothing varies.
    """
    from scipy.special import stdtrit

    [value], [error] = statistic(np.ones((1, clusters)))
    if not error > 0:
        return replace(estimate, too_few=True)
    values, errors = statistic(times(clusters, replicates, seed))
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.where(errors > ROUNDING * error, (values - value) / errors, np.inf * np.sign(values - value))
    distances = distances[~np.isnan(distances)]
    tail, margin = (1 - level) / 2, float(stdtrit(clusters - 1, (1 + level) / 2))
    below = max(np.quantile(distances, 1 - tail, method="higher"), margin) * error
    above = max(-np.quantile(distances, tail, method="lower"), margin) * error
    if not np.isfinite(below + above):
        return replace(estimate, too_few=True)
    return replace(estimate, low=float(value - below), high=float(value + above))


def paired_difference(first: pd.Series, second: pd.Series, clusters: pd.Series) -> Estimate:
    """Mean of `first - second` over the samples where both are defined; all three are indexed by sample id."""
    difference = (first - second).dropna()
    return mean_difference(difference, clusters.loc[difference.index])


def mean_difference(differences: ArrayLike, clusters: ArrayLike) -> Estimate:
    """Mean of differences that are already taken, (n,) as the clusters, with the p-value of `sign_flip_test`."""
    estimate = mean_interval(differences, clusters, differences=True)
    return replace(estimate, p=sign_flip_test(differences, clusters))


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


def jackknife_interval(value: float, left_out: ArrayLike, *, level: float = LEVEL, fewest: int = FEWEST) -> Estimate:
    """`value` with Student's interval, of whose standard error the jackknife is the measure.

    left_out (n,): the value without each of the n clusters in turn; fewer than `fewest` give no interval.
    """
    from scipy.special import stdtrit

    x = np.asarray(left_out, dtype=np.float64)
    if len(x) < max(fewest, 2):
        return Estimate(mean=value, n=len(x), too_few=True)
    error = float(np.sqrt(np.square(x - x.mean()).sum() * (len(x) - 1) / len(x)))
    margin = float(stdtrit(len(x) - 1, (1 + level) / 2)) * error
    return Estimate(mean=value, low=value - margin, high=value + margin, n=len(x))
