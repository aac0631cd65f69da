"""Qwen-VL's visual encoder (Bai et al. 2023, arXiv:2308.12966), by which SEED-X sees: OpenCLIP's ViT bigG and a
resampler. transformers has no class that fits."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from baselines.llama import map_weights
from baselines.seed_x.resampler import Resampler, build_resampler, resized
from editar.io.tensors import CheckpointError, fill

PREFIX = "transformer.visual."
EPS = 1e-6
SIDE = 448  # pixels
POOL_HEAD = 128  # channels
# CLIP's, of RGB.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def preprocess(image: Image.Image) -> Tensor:
    """RGB of any size -> float32 (1, 3, SIDE, SIDE), its proportions not kept."""
    small = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    return ((pixels / 255 - mean) / std)[None]


class SelfAttention(nn.Module):
    """Of all tokens to all. Queries, keys and values lie side by side for each head, unlike those of torch's module."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.in_proj(tokens).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, EPS)
        self.attn = SelfAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width, EPS)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, hidden), "c_proj": nn.Linear(hidden, width)})

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.ln_1(tokens))
        return tokens + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(tokens))))


class VisionTransformer(nn.Module):
    """The published module, under its parameters' names. attn_pool: its resampler."""

    def __init__(
        self, *, width: int, patch: int, positions: int, layers: int, hidden: int, heads: int, attn_pool: Resampler
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.positional_embedding = nn.Parameter(torch.empty(positions, width))
        self.ln_pre = nn.LayerNorm(width, EPS)
        blocks = nn.Sequential(*(Block(width, hidden, heads) for _ in range(layers)))
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.attn_pool = attn_pool
        outputs = attn_pool.query.shape[1]
        self.ln_post = nn.LayerNorm(outputs, EPS)
        self.proj = nn.Parameter(torch.empty(outputs, outputs))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 256, outputs) of `preprocess`ed images (B, 3, SIDE, SIDE)."""
        tokens = self.conv1(pixels).flatten(2).transpose(1, 2)
        tokens = self.ln_pre(tokens + resized(self.positional_embedding, tokens.shape[1]))
        tokens = self.transformer["resblocks"](tokens)
        return self.ln_post(self.attn_pool(tokens)) @ self.proj


def build_vision(state: Mapping[str, Tensor], heads: int) -> VisionTransformer:
    """Of the sizes that the tensors have. Raises KeyError where one of them is missing."""
    blocks = "transformer.resblocks."
    pool = build_resampler(state, "attn_pool.", heads=state["attn_pool.query"].shape[1] // POOL_HEAD, eps=EPS)
    width, *_, patch = state["conv1.weight"].shape
    return VisionTransformer(
        width=width,
        patch=patch,
        positions=len(state["positional_embedding"]),
        layers=len({name.removeprefix(blocks).split(".")[0] for name in state if name.startswith(blocks)}),
        hidden=len(state[f"{blocks}0.mlp.c_fc.weight"]),
        heads=heads,
        attn_pool=pool,
    )


def read_vision(folder: Path, heads: int, dtype: torch.dtype, device: str) -> VisionTransformer:
    """The encoder out of Qwen-VL-Chat's shards, of which only those that hold tensors of it are opened.

    Raises CheckpointError for missing shards, and naming every missing, unexpected and misshapen tensor.
    """
    mapped = partial(map_weights, folder, PREFIX)
    try:
        return fill(lambda: build_vision(mapped(), heads), mapped, folder, dtype=dtype, device=device)
    except KeyError as error:
        raise CheckpointError(f"{folder}: no Qwen-VL-Chat, {PREFIX}{error.args[0]} is missing") from error
