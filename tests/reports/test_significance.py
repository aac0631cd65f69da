"""The test by sign flips against SciPy's permutation test and the t-test, and Holm's correction."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test, ttest_rel

from reports.tables.mean_iou import mean_iou_difference, mean_iou_interval
from reports.tables.significance import EXACT, FLIPS, holm, sign_flip_test


def scipys(totals: np.ndarray, resamples: float) -> float:
    found = permutation_test((totals,), np.sum, permutation_type="samples", n_resamples=resamples, random_state=0)
    return float(found.pvalue)


@pytest.mark.parametrize("clusters", [2, 3, 8, 11])
@pytest.mark.parametrize("kind", ["normal", "lognormal", "yes or no"])
def test_few_clusters_have_the_p_value_of_all_flips(clusters: int, kind: str) -> None:
    rng = np.random.default_rng(clusters)
    groups = np.concatenate([np.arange(clusters), rng.integers(clusters, size=2 * clusters)])
    values = {
        "normal": rng.normal(0.4, 1, len(groups)),
        "lognormal": rng.lognormal(size=len(groups)) - 1,
        "yes or no": rng.integers(-1, 2, len(groups)).astype(float),
    }[kind]
    assert sign_flip_test(values, groups) == pytest.approx(scipys(np.bincount(groups, weights=values), np.inf))


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.2, 0.3])
def test_many_clusters_have_that_of_random_flips_which_is_the_t_tests(shift: float) -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(shift, 1, 300), rng.normal(0, 0.3, 300)
    p = sign_flip_test(first - second, np.arange(300))
    assert p == pytest.approx(ttest_rel(first, second).pvalue, abs=0.012)
    assert p == pytest.approx(scipys(first - second, FLIPS), abs=0.015)


def test_exact_and_random_flips_agree_where_they_meet() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        differences = rng.normal(0.3, 1, EXACT)
        almost = np.append(differences, [1e-300, -1e-300])  # too many clusters to take all flips, and the same sums
        exact = sign_flip_test(differences, range(EXACT))
        assert sign_flip_test(almost, range(EXACT + 2)) == pytest.approx(exact, abs=0.02)


def test_clusters_are_flipped_whole() -> None:
    """Six source images, each with ten equal differences, are six observations and not sixty."""
    values, groups = np.repeat([1.0, 2, 3, 4, 5, 6], 10), np.repeat(np.arange(6), 10)
    assert sign_flip_test(values, groups) == 2 / 2**6
    assert sign_flip_test(values, np.arange(60)) == 1 / (FLIPS + 1)
    assert sign_flip_test(np.append(values, np.zeros(100)), np.append(groups, np.arange(6, 106))) == 2 / 2**6


def test_what_cannot_be_tested_and_what_does_not_differ() -> None:
    assert sign_flip_test([1.0, 2.0], ["a", "a"]) is None and sign_flip_test([], []) is None
    assert sign_flip_test([np.inf, 1.0], ["a", "b"]) is None
    assert sign_flip_test([0.0, 0.0], ["a", "b"]) == 1.0 == sign_flip_test([1.0, -1.0], ["a", "b"])


def test_order_and_scale_have_no_influence() -> None:
    rng = np.random.default_rng(5)
    values, groups = rng.normal(0.1, 1, 80), np.repeat(np.arange(40), 2)
    order = rng.permutation(80)
    p = sign_flip_test(values, groups)
    assert p == sign_flip_test(values[order], groups[order]) == sign_flip_test(-1e6 * values, groups)
    names = pd.Series([f"source{group:02}" for group in groups])
    assert sign_flip_test(values, names) == p


def test_holm_steps_down() -> None:
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([None]) == [None]


def counts_of(both: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([both, labels, labels], axis=1)


def test_the_difference_of_mean_iou_is_paired() -> None:
    rng = np.random.default_rng(0)
    labels, both = rng.integers(50, 100, (70, 4)), rng.integers(20, 40, (70, 4))
    first, second = counts_of(both + rng.integers(1, 9, (70, 4)), labels), counts_of(both, labels)
    draws, clusters = ["0"] * 70, list(range(70))
    found = mean_iou_difference(first, second, draws, clusters, fewest=70)
    one, other = (mean_iou_interval(counts, draws, clusters, fewest=70) for counts in (first, second))
    assert one.mean is not None and other.mean is not None and found.mean == pytest.approx(one.mean - other.mean)
    assert found.low is not None and found.high is not None and one.low is not None and one.high is not None
    assert 0 < found.low < one.mean - other.mean < found.high and found.high - found.low < (one.high - one.low) / 2
    assert found.p == 1 / (FLIPS + 1)
    same = mean_iou_difference(first, first, draws, clusters)
    assert (same.mean, same.low, same.p) == (0.0, None, 1.0)


def test_the_test_of_mean_iou_exchanges_the_maps_of_images() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(50, 100, (6, 3))
    first, second = (counts_of(rng.integers(20, 50, (6, 3)), labels) for _ in range(2))
    found = mean_iou_difference(first, second, ["0"] * 6, range(6))

    def difference(exchanged: np.ndarray) -> float:
        swap = exchanged[:, None, None]
        one, other = np.where(swap, second, first), np.where(swap, first, second)
        means = [mean_iou_interval(counts, ["0"] * 6, range(6)).mean or 0.0 for counts in (one, other)]
        return means[0] - means[1]

    every = [abs(difference(np.array([bool(number >> i & 1) for i in range(6)]))) for number in range(64)]
    assert found.p == pytest.approx(np.mean(np.array(every) >= every[0] * (1 - 1e-9))) and found.low is None
