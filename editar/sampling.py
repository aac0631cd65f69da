"""Drawing target tokens: guidance, temperature, top-k, top-p, and the decode loop.

The noise is one uniform per image and token, drawn on the CPU before decoding by a generator seeded per image,
and turned into a token by the inverse of the cumulative distribution: it depends on nothing but the seed.
The arithmetic before it is kept independent of the batch by `generate`'s fixed width.

Shape suffixes: B images, R rows (B, or 2B with the unconditional branch), N tokens an image, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from editar.config import SamplingConfig
from editar.transformer import EditARTransformer


def guide(logits_RV: Tensor, guidance: float) -> Tensor:
    """Rows [conditional; unconditional] -> guided logits (B, V): u + guidance * (c - u) (paper, eq. 5)."""
    conditional, unconditional = logits_RV.chunk(2)
    return unconditional + guidance * (conditional - unconditional)


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """All but the k largest set to -inf; values that tie with the k-th are kept. k = 0 keeps all."""
    if k == 0 or k >= logits_BV.shape[-1]:
        return logits_BV
    smallest_kept = logits_BV.topk(k, dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < smallest_kept, float("-inf"))


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """The most probable tokens up to and including the one whose cumulative probability passes p; p = 1 keeps all."""
    if p >= 1.0:
        return logits_BV
    ordered, order = logits_BV.sort(dim=-1, descending=True, stable=True)
    before = F.pad(ordered.softmax(-1).cumsum(-1)[:, :-1], (1, 0))
    drop = torch.zeros_like(logits_BV, dtype=torch.bool).scatter(-1, order, before > p)
    return logits_BV.masked_fill(drop, float("-inf"))


def draw_uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """One generator per seed on the CPU -> uniforms in [0, 1), (B, count) float32."""
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows)


def inverse_cdf(probabilities_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """The first token whose cumulative probability exceeds the uniform, (B,) int64; never one of probability 0."""
    cumulative = probabilities_BV.double().cumsum(-1)
    # Scaled by the sum, so that rounding can't leave a uniform near 1 beyond the last token.
    threshold = uniforms_B.double()[:, None] * cumulative[:, -1:]
    return (cumulative <= threshold).sum(-1)


def sample(logits_BV: Tensor, uniforms_B: Tensor, settings: SamplingConfig) -> Tensor:
    """Guided logits (B, V) and uniforms (B,) in [0, 1) -> tokens (B,) int64."""
    if settings.greedy:
        return logits_BV.argmax(-1)
    logits = keep_top_k(logits_BV / settings.temperature, settings.top_k)
    return inverse_cdf(keep_top_p(logits, settings.top_p).softmax(-1), uniforms_B)


@torch.no_grad()
def generate(
    model: EditARTransformer,
    condition_BN: Tensor,
    text_BLE: Tensor,
    seeds: Sequence[int],
    settings: SamplingConfig,
    *,
    width: int = 8,
    progress: Callable[[], object] | None = None,
) -> Tensor:
    """Draw the target tokens of B images, (B, N) int64.

    condition_BN: the condition images' tokens; text_BLE: the text encoder's raw output; seeds: one per image.
    width: images decoded together. Every block is filled up to it (the last by repeats, cut off again), because
    matrix products round differently for different batch sizes: so an image's tokens depend on its inputs and
    its seed alone, not on how many came with it or in which order. progress: called after each token of a block.
    """
    count = condition_BN.shape[0]
    if not count == text_BLE.shape[0] == len(seeds):
        raise ValueError(f"{count} conditions, {text_BLE.shape[0]} texts and {len(seeds)} seeds; expected one each")
    uniforms_BN = draw_uniforms(seeds, model.config.image_tokens).to(condition_BN.device)
    blocks = []
    for start in range(0, count, width):
        chosen = torch.arange(start, start + width).clamp(max=count - 1).to(condition_BN.device)
        block = _generate_block(model, condition_BN[chosen], text_BLE[chosen], uniforms_BN[chosen], settings, progress)
        blocks.append(block[: count - start])
    return torch.cat(blocks)


def _generate_block(
    model: EditARTransformer,
    condition_BN: Tensor,
    text_BLE: Tensor,
    uniforms_BN: Tensor,
    settings: SamplingConfig,
    progress: Callable[[], object] | None,
) -> Tensor:
    null_text = None
    if settings.guided:  # both branches keep the image; the second has the null text
        null_text = torch.arange(2, device=text_BLE.device).repeat_interleave(text_BLE.shape[0]).bool()
        text_BLE = text_BLE.repeat(2, 1, 1)
    logits, cache = model.prefill(condition_BN, text_BLE, null_text)
    tokens: list[Tensor] = []
    for index in range(model.config.image_tokens):
        if index > 0:
            fed = tokens[-1].repeat(2) if settings.guided else tokens[-1]
            logits = model.decode_one(fed, index - 1, cache)
        guided = guide(logits, settings.guidance) if settings.guided else logits
        tokens.append(sample(guided, uniforms_BN[:, index], settings))
        if progress is not None:
            progress()
    return torch.stack(tokens, dim=1)
