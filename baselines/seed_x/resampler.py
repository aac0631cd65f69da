"""Qwen-VL's resampler, which turns the tokens of an image into a fixed number of others. SEED-X has three: at the end
of the visual encoder, and on both sides of the language model."""

from collections.abc import Mapping
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Resampler(nn.Module):
    """Learned queries that attend once to the tokens of an image; nothing is added to or normalised behind it.

    queries: a square number of them, each `width` wide. inputs: width of the tokens. eps: of the normalisations.
    """

    def __init__(self, *, queries: int, width: int, inputs: int, heads: int, eps: float) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(queries, width))
        self.pos_embed = nn.Parameter(torch.empty(queries, width))
        self.kv_proj = nn.Linear(inputs, width, bias=False)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_q = nn.LayerNorm(width, eps)
        self.ln_kv = nn.LayerNorm(width, eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, queries, width) from the tokens of a square grid, (B, N, inputs)."""
        values = self.ln_kv(self.kv_proj(tokens))
        keys = values + resized(self.pos_embed, values.shape[1])
        queries = (self.ln_q(self.query) + self.pos_embed).expand(len(tokens), -1, -1)
        return self.attn(queries, keys, values, need_weights=False)[0]


def build_resampler(state: Mapping[str, Tensor], prefix: str, *, heads: int, eps: float) -> Resampler:
    """Of the sizes that the tensors under `prefix` have. Raises KeyError where one of them is missing."""
    queries, width = state[f"{prefix}query"].shape
    inputs = state[f"{prefix}kv_proj.weight"].shape[1]
    return Resampler(queries=queries, width=width, inputs=inputs, heads=heads, eps=eps)


def resized(positions: Tensor, count: int) -> Tensor:
    """The embeddings (N, width) of a square grid of positions for one of `count` positions, bicubically."""
    side, wanted = isqrt(len(positions)), isqrt(count)
    if side == wanted:
        return positions
    grid = positions.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(wanted, wanted), mode="bicubic", align_corners=False)
    return grid.flatten(2)[0].T.to(positions.dtype)
