"""FID's sums and distance against scipy, clean-fid and torch-fidelity on the same features; exact sums."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metrics.functional.frechet import (
    FeatureStatistics,
    FeatureSums,
    bias_note,
    fid,
    frechet_distance,
    paired_jackknife,
)


def features(images: int, dimension: int, seed: int, shift: float = 0.0) -> Tensor:
    """Correlated, positive, float32: like what a network gives."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimension, dimension, generator=generator) / dimension**0.5
    return (torch.randn(images, dimension, generator=generator) @ mixing + shift).abs()


def sums_of(values: Tensor, *splits: int) -> FeatureSums:
    sums = FeatureSums(values.shape[1])
    for part in values.tensor_split(splits):
        sums.update(part)
    return sums


def statistics_of(values: Tensor) -> FeatureStatistics:
    return sums_of(values).statistics()


def by_numpy(values: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return values.double().numpy().mean(0), np.cov(values.double().numpy(), rowvar=False)


def by_scipy(a: Tensor, b: Tensor) -> float:
    (mean_a, covariance_a), (mean_b, covariance_b) = by_numpy(a), by_numpy(b)
    root = scipy.linalg.sqrtm(covariance_a @ covariance_b)
    return float(np.sum((mean_a - mean_b) ** 2) + np.trace(covariance_a + covariance_b - 2 * np.real(root)))


def by_clean_fid(a: Tensor, b: Tensor) -> float:
    from cleanfid.fid import frechet_distance

    return float(frechet_distance(*by_numpy(a), *by_numpy(b)))


def by_torch_fidelity(a: Tensor, b: Tensor) -> float:
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    statistics = [dict(zip(("mu", "sigma"), by_numpy(x), strict=True)) for x in (a, b)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def by_singular_values(a: Tensor, b: Tensor) -> float:
    """tr((A B)^(1/2)) is the nuclear norm of the product of centred features: exact where covariances are singular."""
    a, b = a.double(), b.double()
    x, y = ((v - v.mean(0)) / (len(v) - 1) ** 0.5 for v in (a, b))
    distance = (a.mean(0) - b.mean(0)).square().sum() + x.square().sum() + y.square().sum()
    return (distance - 2 * torch.linalg.matrix_norm(x @ y.T, "nuc")).item()


@pytest.mark.parametrize("oracle", [by_scipy, by_clean_fid, by_torch_fidelity, by_singular_values])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 50.0])
def test_equals_other_implementations_on_the_same_features(oracle: Any, scale: float) -> None:
    a, b = scale * features(400, 40, 0), scale * features(300, 40, 1, shift=0.1)
    expected = oracle(a, b)
    assert expected > 0.1 * scale**2
    assert fid(statistics_of(a), statistics_of(b)) == pytest.approx(expected, rel=1e-6)


def test_fewer_images_than_features_give_the_exact_value_and_a_note() -> None:
    a, b = features(30, 50, 0), features(80, 50, 1, shift=0.1)
    few, many = statistics_of(a), statistics_of(b)
    assert fid(few, many) == pytest.approx(by_singular_values(a, b), rel=1e-6)
    assert (few.images, many.images) == (30, 80)
    note = bias_note(few, many)
    assert note is not None and note.startswith("30 images are fewer than the 50 features")
    assert bias_note(many, many) is None
    published = replace(few, images=None)
    assert bias_note(many, published) is None and bias_note(few, published) == note


def test_statistics_equal_numpy() -> None:
    values = features(200, 30, 0)
    statistics = sums_of(values, 64, 128).statistics()
    expected_mean, expected_covariance = by_numpy(values)
    np.testing.assert_allclose(statistics.mean.numpy(), expected_mean, rtol=1e-6)
    np.testing.assert_allclose(statistics.covariance.numpy(), expected_covariance, rtol=1e-5, atol=1e-8)


def test_a_set_has_distance_zero_to_itself() -> None:
    for images in (20, 200):
        statistics = statistics_of(features(images, 40, 0))
        assert fid(statistics, statistics) == pytest.approx(0, abs=1e-6)


def test_gaussians_with_diagonal_covariances_have_a_closed_form() -> None:
    mean, a, b = (
        torch.tensor([1.0, -2.0]).double(),
        torch.tensor([4.0, 9.0]).double(),
        torch.tensor([1.0, 0.0]).double(),
    )
    expected = (1 + 4) + (2 - 1) ** 2 + (3 - 0) ** 2
    assert frechet_distance(mean, a.diag(), 0 * mean, b.diag()) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 40), min_size=2, max_size=4), st.sampled_from([1e-4, 1.0, 300.0]))
def test_order_and_batches_change_no_bit(seed: int, splits: list[int], scale: float) -> None:
    values = scale * features(40, 7, seed).clamp(max=3)
    at_once, in_parts = sums_of(values), FeatureSums(7)
    for part in reversed(values.tensor_split(sorted(splits))):
        in_parts.update(part)
    assert in_parts.images == at_once.images == 40
    for name, value in at_once.parts.items():
        assert torch.equal(in_parts.parts[name], value)
    real = statistics_of(features(40, 7, seed + 1))
    assert fid(in_parts.statistics(), real) == fid(at_once.statistics(), real)


def test_plain_float64_sums_would_not_be_exact() -> None:
    values = features(40, 7, 0).double()
    parts = sum(part.T @ part for part in reversed(values.split(7)))
    assert not torch.equal(parts, values.T @ values)


def test_the_largest_sums_are_still_exact() -> None:
    """2^18 images just below the bound: the last bit of every part is there."""
    value = 2.0**10 - 2.0**-13
    sums = sums_of(torch.full((2**18, 1), value), 2**17)
    assert sums.images == 2**18
    statistics = sums.statistics()
    assert (statistics.mean.item(), statistics.covariance.item()) == (value, 0)
    with pytest.raises(ValueError):
        sums.update(torch.zeros(1, 1))


def test_unfit_features_are_refused() -> None:
    sums = FeatureSums(3)
    for bad in (torch.nan, torch.inf, 1024.0, -1024.0):
        with pytest.raises(ValueError):
            sums.update(torch.tensor([[0.0, bad, 0.0]]))
    with pytest.raises(ValueError):
        sums.update(torch.zeros(2, 4))
    sums.update(torch.zeros(1, 3))
    with pytest.raises(ValueError):
        fid(sums.statistics(), statistics_of(torch.zeros(2, 3)))
    with pytest.raises(ValueError, match="3 and 4"):
        fid(statistics_of(torch.zeros(2, 3)), statistics_of(torch.zeros(2, 4)))


def test_the_jackknife_leaves_out_a_pair_in_turn() -> None:
    torch.manual_seed(0)
    generated, reference = torch.randn(6, 3), torch.randn(6, 3)

    def plain(rows: list[int]) -> float:
        return fid(statistics_of(generated[rows]), statistics_of(reference[rows]))

    value, left_out = paired_jackknife(generated, reference)
    assert value == pytest.approx(plain(list(range(6))), abs=1e-6)
    assert left_out == pytest.approx([plain([i for i in range(6) if i != k]) for k in range(6)], abs=1e-6)
    with pytest.raises(ValueError):
        paired_jackknife(generated, reference[:5])
