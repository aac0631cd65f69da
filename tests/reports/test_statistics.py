"""Intervals against a loop that spells them out, against Student's and SciPy's, and what has none."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, bootstrap, ttest_1samp

from reports.tables.statistics import FEWEST, Estimate, jackknife_interval, mean_interval, paired_difference


def loop_bootstrap_t(values, clusters, replicates, rng):
    """The definition: draw whole clusters, average their values, divide the distance from the mean by the standard
    error of that average; one replicate at a time."""
    groups = [values[clusters == name] for name in np.unique(clusters)]

    def mean_and_error(drawn):
        sizes = np.array([len(group) for group in drawn])
        mean = np.concatenate(drawn).mean()
        residuals = np.array([group.sum() for group in drawn]) - mean * sizes
        return mean, np.sqrt(len(drawn) / (len(drawn) - 1) * (residuals**2).sum()) / sizes.sum()

    mean, error = mean_and_error(groups)
    draws = (
        mean_and_error([groups[i] for i in rng.integers(len(groups), size=len(groups))]) for _ in range(replicates)
    )
    low, high = np.quantile([(m - mean) / e for m, e in draws], [0.025, 0.975])
    return mean - high * error, mean - low * error


def bounds(estimate: Estimate) -> np.ndarray:
    assert estimate.low is not None
    assert estimate.high is not None
    return np.array([estimate.low, estimate.high])


def clustered(rng, clusters, spread=1.0, noise=0.3):
    """Unequal clusters of 1 to 4 values around centres of their own; the expectation of every value is 0."""
    sizes = rng.integers(1, 5, clusters)
    centres = np.repeat(rng.normal(0, spread, clusters), sizes)
    return centres + rng.normal(0, noise, len(centres)), np.repeat([f"c{i}" for i in range(clusters)], sizes)


@pytest.mark.parametrize("skewed", [False, True])
def test_interval_is_that_of_a_loop_over_replicates_unless_students_is_wider(skewed: bool) -> None:
    values, clusters = clustered(np.random.default_rng(1), 70)
    if skewed:
        values = np.exp(2 * values)
    estimate = mean_interval(values, clusters, replicates=8000)
    low, high = loop_bootstrap_t(values, clusters, 8000, np.random.default_rng(2))
    sizes = np.bincount(np.unique(clusters, return_inverse=True)[1])
    residuals = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=values) - values.mean() * sizes
    margin = 1.994945 * np.sqrt(70 / 69 * (residuals**2).sum()) / len(values)  # of t with 69 degrees of freedom
    assert estimate.mean == pytest.approx(values.mean(), rel=1e-12) and estimate.n == len(values)
    expected = min(low, values.mean() - margin), max(high, values.mean() + margin)
    assert bounds(estimate) == pytest.approx(expected, abs=0.04 * (high - low))
    if skewed:
        assert high > values.mean() + 1.2 * margin and low > values.mean() - margin  # each bound is one's of the two


def test_it_is_never_narrower_than_students() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        values = rng.normal(size=FEWEST)
        low, high = bounds(mean_interval(values, np.arange(FEWEST)))
        student = ttest_1samp(values, 0).confidence_interval()
        assert low <= student.low + 1e-12 and high >= student.high - 1e-12


@pytest.mark.parametrize("kind", ["normal", "gamma"])
def test_of_many_values_it_is_scipys_bca(kind: str) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(5, 2, 2000) if kind == "normal" else rng.gamma(1, 2, 2000)
    bca = bootstrap((values,), np.mean, n_resamples=4000, vectorized=True, random_state=0).confidence_interval
    estimate = mean_interval(values, np.arange(2000), replicates=4000)
    assert bounds(estimate) == pytest.approx([bca.low, bca.high], abs=0.04 * (bca.high - bca.low))


def test_interval_follows_shift_and_scale():
    values, clusters = clustered(np.random.default_rng(4), 80)
    plain, moved = mean_interval(values, clusters), mean_interval(10 * values + 3, clusters)
    assert moved.mean == pytest.approx(10 * values.mean() + 3)
    assert bounds(moved) == pytest.approx(10 * bounds(plain) + 3)


def test_order_has_no_influence_and_the_seed_has():
    rng = np.random.default_rng(5)
    values, clusters = clustered(rng, 75)
    order = rng.permutation(len(values))
    first, again = mean_interval(values, clusters), mean_interval(values[order], clusters[order])
    assert (first.low, first.high) == pytest.approx((again.low, again.high), rel=1e-12)
    assert mean_interval(values, clusters, seed=1).low != first.low


@pytest.mark.parametrize("values, clusters", [([2.0], ["a"]), ([1.0, 3.0], ["a", "a"]), ([2.0, np.nan], ["a", "b"])])
def test_one_observation_has_no_interval(values, clusters):
    estimate = mean_interval(values, clusters)
    assert (estimate.mean, estimate.low, estimate.high) == (2.0, None, None)


def test_few_clusters_have_no_interval_and_many_values_of_them_do_not_help() -> None:
    rng = np.random.default_rng(0)
    for clusters, given in ((FEWEST - 1, False), (FEWEST, True)):
        groups = np.repeat(np.arange(clusters), 3)
        estimate = mean_interval(rng.normal(size=len(groups)), groups)
        assert (estimate.low is not None) == given and estimate.too_few != given
    constant = mean_interval(np.full(100, 0.1), np.arange(100))
    assert (constant.low, constant.too_few) == (None, True)
    assert mean_interval(rng.normal(size=8), np.arange(8), fewest=8).low is not None


def test_yes_or_no_needs_fewer() -> None:
    scores = np.tile([0.0, 1.0], 10)
    low, high = bounds(mean_interval(scores, np.arange(20)))
    assert 0 < low < 0.3 and 0.7 < high < 1
    assert mean_interval(scores[:8], np.arange(8)).too_few
    assert mean_interval(np.where(np.arange(20) == 0, 0.5, scores), np.arange(20)).too_few  # 0.5 is neither


@pytest.mark.parametrize("yes", [0, 2, 35, 70])
def test_an_interval_of_yes_or_no_is_clopper_and_pearsons(yes: int) -> None:
    estimate = mean_interval(np.arange(70) < yes, np.arange(70), share=True)
    expected = binomtest(yes, 70).proportion_ci(method="exact")
    assert bounds(estimate) == pytest.approx((expected.low, expected.high))


def test_clusters_of_equal_answers_count_once() -> None:
    answers = np.arange(30) < 12
    once = mean_interval(answers, np.arange(30))
    thrice = mean_interval(np.repeat(answers, 3), np.repeat(np.arange(30), 3))
    assert thrice.n == 90 and bounds(thrice) == pytest.approx(bounds(once), abs=0.02)


def test_where_two_methods_are_equal_says_nothing_of_how_they_differ() -> None:
    rng = np.random.default_rng(0)
    second = pd.Series(rng.normal(size=200))
    clusters = pd.Series(np.arange(200))
    for differing, given in ((FEWEST - 1, False), (FEWEST, True)):
        first = second + np.where(np.arange(200) < differing, rng.normal(size=200), 0)
        assert (paired_difference(first, second, clusters).low is not None) == given
    yes, other = (pd.Series((rng.random(200) < share).astype(float)) for share in (0.9, 0.8))
    assert paired_difference(yes, other, clusters).low is not None


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
    # The samples differ far more than the methods: only pairing shows the difference of about 0.5.
    rng = np.random.default_rng(7)
    ids = [f"s{i}" for i in range(140)]
    second = pd.Series(rng.normal(0, 100, 140), index=ids)
    first = (second + 0.5 + rng.normal(0, 0.01, 140)).sample(frac=1, random_state=0)
    clusters = pd.Series([f"c{i // 2}" for i in range(140)], index=ids)
    estimate = paired_difference(first, second, clusters)
    assert (estimate.mean, *bounds(estimate)) == pytest.approx([0.5] * 3, abs=0.005)
    assert bounds(estimate)[0] < estimate.mean < bounds(estimate)[1] and estimate.p == 1 / 10_000
    first["s3"] = np.nan
    assert paired_difference(first.drop("s0"), second, clusters).n == 138
    assert paired_difference(first[:1], second[:1], clusters).p is None


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    x = np.random.default_rng(0).normal(size=70)
    estimate = jackknife_interval(x.mean(), [np.delete(x, i).mean() for i in range(len(x))])
    student = ttest_1samp(x, 0).confidence_interval()
    assert estimate.mean == x.mean() and estimate.n == 70
    assert (estimate.low, estimate.high) == pytest.approx((student.low, student.high))
    assert jackknife_interval(1.0, [2.0]) == Estimate(mean=1.0, n=1, too_few=True)
    assert jackknife_interval(1.0, x[:40]).low is None


@pytest.mark.parametrize("other", [0.998744, 0.3, 1 - 1e-7])
def test_one_value_unlike_all_others_has_no_interval(other: float) -> None:
    """A third of the replicates lacks it, and knows of no spread: what rounding leaves there is none."""
    estimate = mean_interval([1.0] * 499 + [other], range(500))
    assert estimate.mean == pytest.approx((499 + other) / 500) and estimate.too_few and estimate.low is None
