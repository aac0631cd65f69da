"""KID against a slow version, torch-fidelity and clean-fid on the same features."""

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics.functional import kernel_distance as module
from metrics.functional.kernel_distance import kernel_distance


def features(images: int, seed: int, shift: float = 0.0) -> Tensor:
    return (torch.randn(images, 16, generator=torch.Generator().manual_seed(seed)) + shift).abs()


def slow(generated: Tensor, real: Tensor) -> float:
    """Unbiased squared MMD of all images, pair by pair."""
    a, b = generated.double().numpy(), real.double().numpy()

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    n, m = len(a), len(b)
    within = sum(kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j) / (n * (n - 1))
    within += sum(kernel(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j) / (m * (m - 1))
    return within - 2 * sum(kernel(x, y) for x in a for y in b) / (n * m)


def test_sets_of_one_size_are_compared_whole() -> None:
    a, b = features(12, 0), features(12, 1, shift=0.5)
    assert kernel_distance(a, b) == pytest.approx(slow(a, b), rel=1e-9)
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(b, a), rel=1e-12)


def test_is_unbiased_where_sets_have_one_distribution() -> None:
    values = [kernel_distance(features(50, 2 * seed), features(50, 2 * seed + 1)) for seed in range(40)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5


@pytest.mark.parametrize("library", ["torch-fidelity", "clean-fid"])
def test_subsets_give_what_other_libraries_give(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other random subsets: within the spread of their mean, which the distance itself is far above."""
    monkeypatch.setattr(module, "SUBSET_SIZE", 80)
    a, b = features(200, 0), features(300, 1, shift=2.0)
    if library == "clean-fid":
        from cleanfid.fid import kernel_distance as oracle

        np.random.seed(0)
        expected = oracle(b.double().numpy(), a.double().numpy(), num_subsets=400, max_subset_size=80)
    else:
        from torch_fidelity.metric_kid import kid_features_to_metric

        options = {"kid_subsets": 400, "kid_subset_size": 80, "kid_kernel": "poly"}
        result = kid_features_to_metric(a.double(), b.double(), verbose=False, **options)
        expected = result["kernel_inception_distance_mean"]
    assert kernel_distance(a, b) == pytest.approx(expected, rel=0.03)
    assert expected == pytest.approx(slow(a, b), rel=0.02)
    assert kernel_distance(a, b) == kernel_distance(a, b)


def test_unfit_features_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 16\) and \(3, 8\)"):
        kernel_distance(features(3, 0), features(3, 0)[:, :8])
    with pytest.raises(ValueError):
        kernel_distance(features(1, 0), features(3, 0))
