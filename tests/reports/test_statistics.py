"""Bootstrap intervals against a loop that spells them out, against closed forms, and for their coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from reports.tables.statistics import (
    Estimate,
    holm,
    jackknife_interval,
    mean_interval,
    mean_iou_difference,
    mean_iou_interval,
    paired_difference,
)


def loop_bootstrap(values, clusters, replicates, rng):
    """The definition: draw whole clusters, pool their values, average; one replicate at a time."""
    groups: dict[object, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    names = list(groups)
    means = []
    for _ in range(replicates):
        pooled = [v for name in rng.choice(names, len(names)) for v in groups[name]]
        means.append(sum(pooled) / len(pooled))
    return np.quantile(means, [0.025, 0.975])


def bounds(estimate: Estimate) -> np.ndarray:
    assert estimate.low is not None
    assert estimate.high is not None
    return np.array([estimate.low, estimate.high])


def clustered(rng, clusters, spread=1.0, noise=0.3):
    """Unequal clusters of 1 to 4 values around centres of their own; the expectation of every value is 0."""
    sizes = rng.integers(1, 5, clusters)
    centres = np.repeat(rng.normal(0, spread, clusters), sizes)
    return centres + rng.normal(0, noise, len(centres)), np.repeat([f"c{i}" for i in range(clusters)], sizes)


def test_interval_is_that_of_a_loop_over_replicates():
    values, clusters = clustered(np.random.default_rng(1), 30)
    estimate = mean_interval(values, clusters, replicates=8000)
    low, high = loop_bootstrap(values, clusters, 8000, np.random.default_rng(2))
    width = high - low
    assert estimate.mean == pytest.approx(values.mean(), rel=1e-12)
    assert estimate.low == pytest.approx(low, abs=0.04 * width)
    assert estimate.high == pytest.approx(high, abs=0.04 * width)
    assert estimate.n == len(values)


def test_two_clusters_have_a_known_distribution():
    # The mean of a draw is 1 (a quarter), 2 (a half) or 3 (a quarter), so these quantiles are exact.
    values, clusters = [1.0, 1.0, 3.0, 3.0], ["a", "a", "b", "b"]
    estimate = mean_interval(values, clusters)
    assert (estimate.mean, estimate.low, estimate.high) == (2.0, 1.0, 3.0)
    half = mean_interval(values, clusters, level=0.4)
    assert (half.low, half.high) == (2.0, 2.0)


def test_width_is_that_of_the_normal_limit():
    values = np.random.default_rng(3).normal(5, 2, 400)
    estimate = mean_interval(values, np.arange(400), replicates=8000)
    half = 1.959964 * values.std() / 20
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_interval_follows_shift_and_scale():
    values, clusters = clustered(np.random.default_rng(4), 20)
    plain, moved = mean_interval(values, clusters), mean_interval(10 * values + 3, clusters)
    assert moved.mean == pytest.approx(10 * values.mean() + 3)
    assert bounds(moved) == pytest.approx(10 * bounds(plain) + 3)


def test_order_has_no_influence_and_the_seed_has():
    rng = np.random.default_rng(5)
    values, clusters = clustered(rng, 25)
    order = rng.permutation(len(values))
    first, again = mean_interval(values, clusters), mean_interval(values[order], clusters[order])
    assert (first.low, first.high) == pytest.approx((again.low, again.high), rel=1e-12)
    assert mean_interval(values, clusters, seed=1).low != first.low


def test_coverage_of_clustered_data_is_near_the_level_and_that_of_single_values_is_not():
    rng = np.random.default_rng(6)
    hits = np.zeros(2)
    trials = 400
    for _ in range(trials):
        values, clusters = clustered(rng, 40)
        for i, groups in enumerate((clusters, np.arange(len(values)))):
            estimate = mean_interval(values, groups, replicates=400)
            low, high = bounds(estimate)
            hits[i] += low <= 0 <= high
    right, naive = hits / trials
    assert 0.90 <= right <= 0.98
    assert naive < 0.85


@pytest.mark.parametrize("values, clusters", [([2.0], ["a"]), ([1.0, 3.0], ["a", "a"]), ([2.0, np.nan], ["a", "b"])])
def test_one_observation_has_no_interval(values, clusters):
    estimate = mean_interval(values, clusters)
    assert (estimate.mean, estimate.low, estimate.high) == (2.0, None, None)


def test_undefined_values_are_dropped_and_counted():
    values, clusters = [1.0, np.nan, 2.0, 4.0, np.nan], ["a", "a", "b", "c", "d"]
    estimate = mean_interval(values, clusters)
    assert estimate == mean_interval([1.0, 2.0, 4.0], ["a", "b", "c"])
    assert estimate.n == 3
    nothing = mean_interval([np.nan, np.nan], ["a", "b"])
    assert (nothing.mean, nothing.low, nothing.high, nothing.n) == (None, None, None, 0)


def test_infinite_values_give_an_infinite_mean_without_an_interval():
    estimate = mean_interval([np.inf, 1.0, 2.0], ["a", "b", "c"])
    assert (estimate.mean, estimate.low, estimate.n) == (np.inf, None, 3)
    assert mean_interval([-np.inf, 1.0], ["a", "b"]).mean == -np.inf
    assert mean_interval([np.inf, -np.inf], ["a", "b"]).mean is None


def test_lengths_must_agree():
    with pytest.raises(ValueError):
        mean_interval([1.0, 2.0], ["a"])


def test_paired_difference_uses_the_pairs_only():
    # The samples differ far more than the methods: only pairing shows the constant difference of 0.5.
    ids = [f"s{i}" for i in range(40)]
    second = pd.Series(np.random.default_rng(7).normal(0, 100, 40), index=ids)
    first = (second + 0.5).sample(frac=1, random_state=0)
    clusters = pd.Series([f"c{i // 2}" for i in range(40)], index=ids)
    estimate = paired_difference(first, second, clusters)
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((0.5, 0.5, 0.5))
    first["s3"] = np.nan
    assert paired_difference(first.drop("s0"), second, clusters).n == 38


def test_the_jackknife_of_a_mean_is_its_textbook_interval() -> None:
    x = np.random.default_rng(0).normal(size=40)
    estimate = jackknife_interval(x.mean(), [np.delete(x, i).mean() for i in range(len(x))])
    margin = 1.959964 * x.std(ddof=1) / np.sqrt(len(x))
    assert estimate.mean == x.mean() and estimate.n == 40
    assert (estimate.low, estimate.high) == pytest.approx((x.mean() - margin, x.mean() + margin))
    assert jackknife_interval(1.0, [2.0]) == Estimate(mean=1.0, n=1)


def test_holm_steps_down() -> None:
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([None]) == [None]


def test_p_values_are_those_of_the_t_test_where_it_holds() -> None:
    """Normal differences of many clusters of one: the bootstrap and the t-test agree."""
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.1, 0.2):
        first = pd.Series(rng.normal(shift, 1, 300))
        second = pd.Series(rng.normal(0, 0.3, 300))
        estimate = paired_difference(first, second, pd.Series(range(300)), test=True)
        assert estimate.p == pytest.approx(ttest_rel(first, second).pvalue, abs=0.02)
    same = paired_difference(first, first, pd.Series(range(300)), test=True)
    assert (same.mean, same.p) == (0.0, 1.0)
    assert paired_difference(first[:1], second[:1], pd.Series([0]), test=True).p is None


def test_the_difference_of_mean_iou_is_paired() -> None:
    rng = np.random.default_rng(0)
    labels, both = rng.integers(50, 100, (30, 4)), rng.integers(20, 50, (30, 4))
    first = np.stack([both + 5, labels, labels], axis=1)
    second = np.stack([both, labels, labels], axis=1)
    draws, clusters = ["0"] * 30, list(range(30))
    found = mean_iou_difference(first, second, draws, clusters)
    one, other = (mean_iou_interval(counts, draws, clusters).mean for counts in (first, second))
    assert (
        one is not None
        and other is not None
        and found.mean == pytest.approx(one - other)
        and found.low is not None
        and found.low > 0
    )
    assert found.p == pytest.approx(2 / 10_001)
    assert mean_iou_difference(first, first, draws, clusters).p == 1.0
