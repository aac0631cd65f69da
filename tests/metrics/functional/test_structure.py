"""Structure distance against a slow float64 version."""

import numpy as np
import pytest
import torch

from metrics.functional.structure import self_similarity, structure_distance


def slow_self_similarity(keys: np.ndarray) -> np.ndarray:
    """Token by token in float64: keys (N, D)."""
    result = np.empty((len(keys), len(keys)))
    for i, a in enumerate(keys.astype(np.float64)):
        for j, b in enumerate(keys.astype(np.float64)):
            result[i, j] = a @ b / max(np.sqrt(a @ a) * np.sqrt(b @ b), 1e-8)
    return result


def keys(seed: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 9, 5, generator=torch.Generator().manual_seed(seed))


def test_equals_the_slow_version() -> None:
    a, b = keys(0), keys(1)
    distances = structure_distance(self_similarity(a), self_similarity(b))
    for i in range(2):
        expected = np.mean((slow_self_similarity(a[i].numpy()) - slow_self_similarity(b[i].numpy())) ** 2)
        assert distances[i].item() == pytest.approx(expected, rel=1e-5)


def test_a_zero_key_is_similar_to_nothing() -> None:
    a = keys(0)
    a[0, 3] = 0
    similarity = self_similarity(a)
    assert similarity[0, 3].abs().max() == 0
    np.testing.assert_allclose(similarity[0].numpy(), slow_self_similarity(a[0].numpy()), atol=1e-6)


def test_scale_and_rotation_of_the_keys_do_not_matter() -> None:
    a = keys(0)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(3)))[0]
    distance = structure_distance(self_similarity(a), self_similarity(3 * a @ rotation))
    assert distance.max() < 1e-12


def test_bfloat16_keys_are_compared_in_float32() -> None:
    a = keys(0).bfloat16()
    assert torch.equal(self_similarity(a), self_similarity(a.float()))
