"""Control over the attention of a diffusers UNet, through attention processors.

A control sees every attention layer of the transformer blocks. The batch of the UNet is (2, 2, B): unconditional and
conditional half, source and target branch, requests. Layers are numbered in the order in which they are called (down,
mid, up), which is not that of `unet.attn_processors`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

PLACES = ("down", "mid", "up")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """place: "down", "mid" or "up"; block: which of the blocks there; index: of the self- and cross-attention pair."""

    place: str
    block: int
    index: int
    cross: bool


class AttentionControl(Protocol):
    def self_attention(self, layer: Layer, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The queries, keys and values to attend with; each (batch, heads, pixels, dim)."""
        ...

    def cross_attention(self, layer: Layer, weights: Tensor) -> Tensor:
        """The attention weights (batch, heads, pixels, tokens) to use."""
        ...


class ControlledAttention:
    """The attention processor of one layer.

    Self-attention never forms its weights, which at 64 x 64 latents would take 0.5 GB an image and layer: replacing
    weights by those of the source is attending with the source's queries and keys.
    """

    def __init__(self, layer: Layer, control: AttentionControl) -> None:
        self.layer, self.control = layer, control

    def __call__(
        self, attention: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states

        def heads(states: Tensor) -> Tensor:
            return states.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

        query = heads(attention.to_q(hidden_states))
        key, value = heads(attention.to_k(context)), heads(attention.to_v(context))
        if self.layer.cross:
            weights = (query @ key.transpose(-1, -2) * attention.scale).softmax(-1)
            out = self.control.cross_attention(self.layer, weights) @ value
        else:
            query, key, value = self.control.self_attention(self.layer, query, key, value)
            out = F.scaled_dot_product_attention(query, key, value, scale=attention.scale)
        return attention.to_out[1](attention.to_out[0](out.transpose(1, 2).flatten(2)))


def attention_layers(unet: Any) -> dict[str, Layer]:
    """The attention layers of the transformer blocks by their processor's name, in the order of calls."""
    names = [name for name in unet.attn_processors if name.split(".")[-2] in ("attn1", "attn2")]
    names.sort(key=lambda name: PLACES.index(name.split("_")[0]))  # stable: within a place they are in order
    layers = {}
    for number, name in enumerate(names):
        block = name.split(".")[1]
        layers[name] = Layer(
            place=name.split("_")[0],
            block=int(block) if block.isdecimal() else 0,  # the middle has only one
            index=number // 2,
            cross=name.split(".")[-2] == "attn2",
        )
    return layers


@contextmanager
def controlled(unet: Any, control: AttentionControl) -> Iterator[None]:
    """Within it the UNet's attention is under control."""
    before = unet.attn_processors
    ours = {name: ControlledAttention(layer, control) for name, layer in attention_layers(unet).items()}
    unet.set_attn_processor({**before, **ours})
    try:
        yield
    finally:
        unet.set_attn_processor(dict(before))
