"""The resampler of SEED-X's de-tokenizer: from the features of an image to what SDXL's UNet reads as a prompt."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LatentAttention(nn.Module):
    """Of latents to the features and to themselves."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        latents = self.norm2(latents)
        read = torch.cat([self.norm1(features), latents], dim=1)
        keys, values = self.to_kv(read).chunk(2, dim=-1)
        return self.to_out(_attention(self.to_q(latents), keys, values, self.heads))


class AttentionPool(nn.Module):
    """As in CLIP's ResNets: one vector of all tokens, asked for by their mean."""

    def __init__(self, tokens: int, width: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(tokens + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        read = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.positional_embedding
        pooled = _attention(self.q_proj(read[:, :1]), self.k_proj(read), self.v_proj(read), self.heads)
        return self.c_proj(pooled)[:, 0]


class PromptResampler(nn.Module):
    """The published module, under its parameters' names.

    queries, width: of the latents. inputs: width of the features. inner, heads: of the attention. outputs: the widths
    of SDXL's two text encoders.
    """

    def __init__(
        self, *, queries: int, width: int, inputs: int, inner: int, layers: int, heads: int, outputs: tuple[int, int]
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(1, queries, width))
        self.proj_in = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(
            nn.ModuleList([LatentAttention(width, inner, heads), _feed_forward(width)]) for _ in range(layers)
        )
        self.norm_out = nn.LayerNorm(width)
        self.unet_proj_1 = nn.Linear(width, outputs[0])
        self.unet_proj_2 = nn.Linear(width, outputs[1])
        self.unet_attnpool = AttentionPool(queries, width, outputs[1], heads)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The prompt's embeddings (B, queries, sum of the outputs) and what SDXL calls pooled, (B, the second output),
        from features (B, tokens, inputs)."""
        features = self.proj_in(features)
        latents = self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            attention, feed_forward = layer
            latents = latents + attention(features, latents)
            latents = latents + feed_forward(latents)
        latents = self.norm_out(latents)
        return torch.cat([self.unet_proj_1(latents), self.unet_proj_2(latents)], dim=-1), self.unet_attnpool(latents)


def build_prompt_resampler(state: Mapping[str, Tensor], heads: int) -> PromptResampler:
    """Of the sizes that the tensors have. Raises KeyError where one of them is missing."""
    _, queries, width = state["latents"].shape
    return PromptResampler(
        queries=queries,
        width=width,
        inputs=state["proj_in.weight"].shape[1],
        inner=len(state["layers.0.0.to_q.weight"]),
        layers=len({name.split(".")[1] for name in state if name.startswith("layers.")}),
        heads=heads,
        outputs=(len(state["unet_proj_1.weight"]), len(state["unet_proj_2.weight"])),
    )


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width, bias=False),
        nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
    )


def _attention(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    split = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (queries, keys, values))
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
