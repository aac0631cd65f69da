"""Inputs of the decoder."""

import pytest
import torch


@pytest.fixture(scope="module")
def three():
    """Conditions, texts and seeds of three images."""
    generator = torch.Generator().manual_seed(0)
    condition = torch.randint(0, 128, (3, 64), generator=generator)
    return condition, torch.randn(3, 120, 32, generator=generator), [11, 12, 13]
