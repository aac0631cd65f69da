"""Structure distance (Tumanyan et al. 2022, "Splicing ViT Features"): how far the self-similarity of an image moved."""

import torch
from torch import Tensor

EPSILON = 1e-8


def self_similarity(keys: Tensor) -> Tensor:
    """Cosine similarity of every token with every other: keys (B, N, D) to float32 (B, N, N).

    The product of the norms is clamped from below at 1e-8, as in the released evaluator.

    >>> self_similarity(torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]))
    tensor([[[1., 0.],
             [0., 1.]]])
    """
    keys = keys.float()
    norms = keys.norm(dim=-1, keepdim=True)
    scale = (norms @ norms.transpose(1, 2)).clamp(min=EPSILON)
    return keys @ keys.transpose(1, 2) / scale


def structure_distance(similarity_a: Tensor, similarity_b: Tensor) -> Tensor:
    """Mean squared difference of two self-similarity matrices: (B, N, N) twice to (B,).

    >>> structure_distance(torch.eye(2)[None], torch.ones(1, 2, 2))
    tensor([0.5000], dtype=torch.float64)
    """
    return (similarity_a - similarity_b).square().flatten(1).mean(1, dtype=torch.float64)
