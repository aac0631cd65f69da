"""Mean IoU of all images together, with its interval, and differences of it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from reports.tables.significance import flip_p_value, flipped_sums
from reports.tables.statistics import FEWEST_MEAN_IOU, REPLICATES, ROWS, Estimate, studentized

Parts = Sequence[tuple[float, np.ndarray]]  # weights, and counts summed by cluster (K, 3, C)


def mean_iou_interval(
    counts: np.ndarray,
    draws: ArrayLike,
    clusters: ArrayLike,
    *,
    replicates: int = REPLICATES,
    fewest: int = FEWEST_MEAN_IOU,
) -> Estimate:
    """Mean IoU of all images together, with the interval of `studentized`.

    counts (n, 3, C): of each image, the pixels of each class in both maps, in the prediction, in the label. IoU of a
    class is that of all pixels; the mean is over the classes that occur, then over the draws. draws, clusters: (n,). A
    replicate draws clusters as in `mean_interval`, and takes the mean IoU of their images.
    """
    sums = _by_cluster(counts, draws, clusters)
    return _interval([(1 / len(sums), each) for each in sums], len(counts), fewest, replicates)


def mean_iou_difference(
    first: np.ndarray, second: np.ndarray, draws: ArrayLike, clusters: ArrayLike, *, fewest: int = FEWEST_MEAN_IOU
) -> Estimate:
    """Mean IoU of `first` minus that of `second`, counts as in `mean_iou_interval` of the same images in their order.

    Replicates draw the same clusters for both. p is of exchanging the two maps in random clusters, as sign flips do.
    """
    one, other = (_by_cluster(counts, draws, clusters) for counts in (first, second))
    parts = [(sign / len(one), each) for sign, sums in ((1, one), (-1, other)) for each in sums]
    estimate = _interval(parts, len(first), fewest)
    if estimate.mean is None or len(one[0]) < 2:
        return estimate
    flipped = np.zeros(())
    for a, b in zip(one, other, strict=True):
        half = flipped_sums((a - b) / 2)
        middle = (a + b).sum(0) / 2
        flipped = flipped + (mean_iou(middle + half) - mean_iou(middle - half)) / len(one)
    return replace(estimate, p=flip_p_value(estimate.mean, flipped, len(one[0])))


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """(n,) of counts (n, 3, C), float, as in `mean_iou_interval`: over the classes that occur, NaN where none does."""
    both, union = _both_and_union(counts)
    iou = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    present = (union > 0).sum(1)
    return np.divide(iou.sum(1), present, out=np.full(len(iou), np.nan), where=present > 0)


def _both_and_union(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both, predicted, labelled = np.moveaxis(counts, 1, 0)
    return both, predicted + labelled - both


def _interval(parts: Parts, images: int, fewest: int, replicates: int = REPLICATES) -> Estimate:
    if not images:
        return Estimate(mean=None, n=0)
    clusters = len(parts[0][1])
    value = sum(weight * float(mean_iou(by_cluster.sum(0)[None])[0]) for weight, by_cluster in parts)
    estimate = Estimate(mean=None if np.isnan(value) else value, n=images)
    if estimate.mean is None or clusters < max(fewest, 2):
        return replace(estimate, too_few=estimate.mean is not None)
    return studentized(estimate, partial(_statistic, parts), clusters, replicates=replicates)


def _statistic(parts: Parts, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weighted sum of the parts' mean IoU, each cluster taken as often as `chosen` (R, K) says, and its standard
    error from what each cluster adds to the linearized value, (R,) each; NaN where no class occurs."""
    clusters = chosen.shape[1]
    values, errors = np.zeros(len(chosen)), np.zeros(len(chosen))
    for start in range(0, len(chosen), ROWS):  # in pieces, for the influence of each cluster is as large as `chosen`
        rows = slice(start, start + ROWS)
        influence = np.zeros(chosen[rows].shape)
        for weight, by_cluster in parts:
            sums = np.tensordot(chosen[rows], by_cluster, 1)
            values[rows] += weight * mean_iou(sums)
            both, union = _both_and_union(by_cluster)
            boths, unions = _both_and_union(sums)
            per_pixel = np.divide(weight, unions, out=np.zeros_like(unions), where=unions > 0)
            per_pixel /= np.maximum((unions > 0).sum(1, keepdims=True), 1)
            iou = np.divide(boths, unions, out=np.zeros_like(boths), where=unions > 0)
            influence += per_pixel @ both.T - (per_pixel * iou) @ union.T
        errors[rows] = np.sqrt((chosen[rows] * influence**2).sum(1) * (clusters / (clusters - 1)))
    return values, errors


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
