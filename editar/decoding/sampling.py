"""Drawing target tokens: guidance, temperature, top-k, top-p.

The noise is one uniform per image and token, drawn on the CPU before decoding by a generator seeded per image,
and turned into a token by the inverse of the cumulative distribution: it depends on nothing but the seed.
Nothing here makes the host wait for the device.

Shape suffixes: B images, R rows (2B with the unconditional branch), V vocabulary.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from editar.config import SamplingConfig, require_seed


def guide(logits_RV: Tensor, guidance: float) -> Tensor:
    """Rows of images in turn, conditional then unconditional -> (B, V): u + guidance * (c - u) (paper, eq. 5).

    >>> guide(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), 3.0)
    tensor([[3., 6.]])
    """
    conditional, unconditional = logits_RV.unflatten(0, (-1, 2)).unbind(1)
    return unconditional + guidance * (conditional - unconditional)


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """All but the k largest set to -inf; values that tie with the k-th are kept. k = 0 keeps all.

    >>> keep_top_k(torch.tensor([[1.0, 3.0, 2.0]]), 2)
    tensor([[-inf, 3., 2.]])
    """
    if k == 0 or k >= logits_BV.shape[-1]:
        return logits_BV
    smallest_kept = logits_BV.topk(k, dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < smallest_kept, float("-inf"))


def keep_top_p(logits_BV: Tensor, p: float, finite: int = 0) -> Tensor:
    """The most probable tokens up to and including the one whose cumulative probability passes p; p = 1 keeps all.

    finite: how many logits are not -inf, those aside that tie with the smallest of them, if the caller knows (after
    `keep_top_k`). Only so many are sorted, at the published 1000 of 16384 an order of magnitude faster than all; 0 is
    all.

    >>> keep_top_p(torch.tensor([[0.5, 0.3, 0.2]]).log(), 0.7).exp()
    tensor([[0.5000, 0.3000, 0.0000]])
    """
    if p >= 1.0:
        return logits_BV
    count = min(finite or logits_BV.shape[-1], logits_BV.shape[-1])
    ordered = logits_BV.topk(count, dim=-1).values
    probabilities = (ordered - logits_BV.logsumexp(-1, keepdim=True)).exp()
    before = F.pad(probabilities.cumsum(-1)[:, :-1], (1, 0))
    last = ordered.masked_fill(before > p, float("inf")).amin(-1, keepdim=True)
    # Several tokens may tie with the last one that is kept: of these, the first ones until p is passed.
    is_last = logits_BV == last
    start = before.masked_fill(ordered != last, float("inf")).amin(-1, keepdim=True)
    each = (last - logits_BV.logsumexp(-1, keepdim=True)).exp()
    before_last = start + (is_last.cumsum(-1) - 1) * each
    return logits_BV.masked_fill((logits_BV < last) | (is_last & (before_last > p)), float("-inf"))


def draw_uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """One generator per seed on the CPU -> uniforms in [0, 1), (B, count) float32. ValueError for seeds out of range.

    >>> draw_uniforms([7, 8], 1000).shape
    torch.Size([2, 1000])
    >>> bool((draw_uniforms([7, 8], 1000)[1] == draw_uniforms([8], 1000)[0]).all())
    True
    """
    for seed in seeds:
        require_seed(seed)
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows)


def inverse_cdf(probabilities_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """The first token whose cumulative probability exceeds the uniform, (B,) int64; never one of probability 0.

    >>> inverse_cdf(torch.tensor([[0.2, 0.0, 0.8]] * 2), torch.tensor([0.1, 0.2]))
    tensor([0, 2])
    """
    cumulative = probabilities_BV.double().cumsum(-1)
    # Scaled by the sum, so that rounding can't leave a uniform near 1 beyond the last token.
    threshold = uniforms_B.double()[:, None] * cumulative[:, -1:]
    return (cumulative <= threshold).sum(-1)


def sample(logits_BV: Tensor, uniforms_B: Tensor, settings: SamplingConfig) -> Tensor:
    """Guided logits (B, V) and uniforms (B,) in [0, 1) -> tokens (B,) int64.

    >>> logits = torch.tensor([[0.0, 5.0, 1.0]])
    >>> sample(logits, torch.tensor([0.5]), SamplingConfig(top_k=2))
    tensor([1])
    """
    if settings.greedy:
        return logits_BV.argmax(-1)
    logits = keep_top_k(logits_BV / settings.temperature, settings.top_k)
    return inverse_cdf(keep_top_p(logits, settings.top_p, finite=settings.top_k).softmax(-1), uniforms_B)
