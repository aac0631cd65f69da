"""Given target tokens through a model with a cache."""

import torch
from torch import Tensor

from editar.decoding.forward import CachedTransformer


def run_cached(model: CachedTransformer, target_RN: Tensor, first: Tensor) -> Tensor:
    """The logits of all target tokens, with the true ones fed: (R, N, V). first: those of the prefill."""
    steps = [first]
    for fed in range(target_RN.shape[1] - 1):
        model.make_room(fed)
        steps.append(model.decode_one(target_RN[:, fed]))
    return torch.stack(steps, 1)
