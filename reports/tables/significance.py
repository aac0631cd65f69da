"""Tests of paired differences by sign flips, and Holm's correction for many of them."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

FLIPS = 9999  # p-values of many pairs are multiplied by their number, so they have to reach further down
EXACT = 14  # clusters up to which all flips are taken, half of 2 to the power of that
SEED = 0
ROWS = 64  # clusters flipped at once
EQUAL = 1e-9  # relative: sums of the same numbers in another order


def sign_flip_test(differences: ArrayLike, clusters: ArrayLike) -> float | None:
    """Two-sided p-value of the two methods' scores being exchangeable within each cluster.

    differences: of paired scores, those that are NaN left out, and clusters: (n,) each. If it makes no difference which
    method a score is of, every choice of the clusters' signs is as likely as the one observed; p is the share of
    choices whose sum is at least as far from 0. All are taken where at most EXACT clusters have a sum other than 0,
    else FLIPS random ones beside the observed (Phipson and Smyth, Permutation p-values should never be zero, 2010).
    None for fewer than two clusters and for infinite differences.
    """
    x, groups = np.asarray(differences, dtype=np.float64), np.asarray(clusters)
    x, groups = x[~np.isnan(x)], groups[~np.isnan(x)]
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < 2 or not np.isfinite(x).all():
        return None
    totals = np.bincount(member, weights=x)
    different = totals[totals != 0]  # the sign of the others is nothing
    if not len(different):
        return 1.0
    return flip_p_value(different.sum(), flipped_sums(different), len(different))


def flip_p_value(observed: float, flipped: np.ndarray, clusters: int) -> float:
    """Of a statistic and its values (F,) where the signs of so many clusters are flipped as in `flipped_sums`."""
    as_far = int((np.abs(flipped) >= abs(observed) * (1 - EQUAL)).sum())
    return as_far / len(flipped) if clusters <= EXACT else (as_far + 1) / (len(flipped) + 1)


def flipped_sums(values: np.ndarray) -> np.ndarray:
    """Sums over clusters of values (K, ...) with their signs flipped, (F, ...).

    All choices of signs that keep the first one, whose opposites they stand for, or FLIPS random ones.
    """
    clusters = len(values)
    if clusters <= EXACT:
        flipped = (np.arange(2 ** (clusters - 1)) >> np.arange(clusters)[::-1, None]) & 1
        return np.tensordot(1.0 - 2 * flipped, values, (0, 0))
    sums = np.zeros((FLIPS, *values.shape[1:]))
    signs = _signs(1 << (clusters - 1).bit_length())
    for start in range(0, clusters, ROWS):
        part = values[start : start + ROWS]
        sums += np.tensordot(signs[start : start + len(part)].astype(np.float64), part, (0, 0))
    return sums


@lru_cache(maxsize=2)
def _signs(clusters: int) -> np.ndarray:
    """(K, FLIPS) of 1 and -1 at random. Fewer clusters have the first rows of more."""
    rng = np.random.default_rng(SEED)
    signs = np.empty((clusters, FLIPS), np.int8)
    for row in signs:
        row[:] = 1 - 2 * rng.integers(0, 2, FLIPS)
    return signs


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
