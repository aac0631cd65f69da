"""One token's step on a CPU with the functions of kernels/ between the matrix products.

Shape suffixes: B images, G rows that share an image (2 when guided), R = B * G rows, H heads, D head size, N image
tokens, C channels, V vocabulary.
"""

import math
from typing import Any

import torch
from torch import Tensor

from editar.config import TransformerConfig
from editar.decoding.cache import LayerCache
from editar.decoding.cpu.kernels import LANES, NUMBERS, compiled
from editar.decoding.cpu.linear import PackedFeedForward
from editar.decoding.forward import CachedTransformer
from editar.model.transformer import EditARTransformer, RMSNorm


class TiledCache(LayerCache):
    """A LayerCache with all its slots in use, whose keys lie in tiles: (..., N / LANES, D, LANES)."""

    def __init__(self, config: TransformerConfig, images: int, rows_each: int, like: Tensor) -> None:
        super().__init__(config, images, rows_each, like)
        self.resize(config.image_tokens)

    def keep_image_keys(self, k_BHND: Tensor) -> None:
        tiles = k_BHND.unflatten(2, (-1, LANES)).mT
        self.prefix_k.view(tiles.shape).copy_(tiles)

    def clear_text_key(self) -> None:
        *rows, _, size = self.own_k.shape
        self.own_k.view(*rows, -1, size, LANES)[..., 0, :, 0] = 0


class FusedTransformer(CachedTransformer):
    """A CachedTransformer of packed layers whose steps take fewer and larger operations; results differ by rounding.

    An image's logits have the same bits at every number of images: its rows in the products of a step do not depend on
    the number of rows, and what comes before the target, which PyTorch's products take, is read image by image.
    """

    cache = TiledCache

    def __init__(self, model: EditARTransformer, images: int, rows_each: int) -> None:
        if not can_fuse(model):
            raise ValueError("this model's steps can't be fused; CachedTransformer takes it")
        config, weight = model.config, model.tok_embeddings.weight
        super().__init__(model, images, rows_each, stride=config.image_tokens)
        self._layer: Any = compiled("layer.cpp", weight.dtype)
        attention: Any = compiled("attention.cpp", weight.dtype, config.head_dim)
        self._attend = attention.attend_guided if rows_each == 2 else attention.attend_single
        rows = images * rows_each
        self._x = weight.new_empty(rows, config.dim)
        self._gated = weight.new_empty(rows, config.ffn_dim)
        self._nothing = weight.new_zeros(rows, config.dim)
        self._logits = torch.empty(rows * config.heads * 2 * config.image_tokens)

    def read(
        self, condition_BN: Tensor, text_RLE: Tensor, null_text_R: Tensor | None, layers: list[LayerCache]
    ) -> Tensor:
        logits = []
        for image, condition in enumerate(condition_BN):
            rows = slice(image * self.rows_each, (image + 1) * self.rows_each)
            null = None if null_text_R is None else null_text_R[rows]
            parts = [layer.of_image(image) for layer in layers]
            logits.append(super().read(condition[None], text_RLE[rows], null, parts))
        return torch.cat(logits)

    def decode_one(self, token_R: Tensor) -> Tensor:
        model, slot = self.model, int(self.slot)
        table = self._rotations[slot + self._first]
        h = model.tok_embeddings(token_R)
        delta = self._nothing
        blocks: Any = model.layers
        for block, layer in zip(blocks, self.layers, strict=True):
            x = self._normalise(h, delta, block.attention_norm)
            delta = block.attention.wo(self.attend(block.attention.wqkv(x), table, layer, slot))
            x = self._normalise(h, delta, block.ffn_norm)
            delta = block.feed_forward.w2(self._gate(block.feed_forward.both(x)))
        self.slot += 1
        return model.logits(self._normalise(h, delta, model.norm))

    def _normalise(self, h_RC: Tensor, delta_RC: Tensor, norm: RMSNorm) -> Tensor:
        """Add delta to h, in place, and normalise that."""
        self._layer.add_and_normalise(h_RC, delta_RC, norm.weight, float(norm.eps), self._x, *h_RC.shape)
        return self._x

    def attend(self, qkv: Tensor, table_D2: Tensor, layer: LayerCache, slot: int) -> Tensor:
        """Keep the new token's key and value in a slot and attend to all that is kept: (R, 3 * C) -> (R, C).

        table_D2: the rotation of the token's position, (D / 2, 2) float32. The result is overwritten by the next call.
        """
        c = self.model.config
        caches = layer.prefix_k, layer.prefix_v, layer.own_k, layer.own_v
        sizes = self.images, c.heads, c.image_tokens, c.image_tokens, slot
        self._attend(qkv, table_D2, *caches, self._logits, self._x, *sizes, math.log(c.text_length))
        return self._x

    def _gate(self, both: Tensor) -> Tensor:
        self._layer.gate(both, self._gated, *self._gated.shape)
        return self._gated


def can_fuse(model: EditARTransformer) -> bool:
    """Whether a model's steps can be fused: packed, on a CPU, of sizes that fill vectors, and with a compiler."""
    config, weight = model.config, model.tok_embeddings.weight
    blocks: Any = model.layers
    return (
        weight.device.type == "cpu"
        and weight.dtype in NUMBERS
        and all(isinstance(block.feed_forward, PackedFeedForward) for block in blocks)
        and all(size % LANES == 0 for size in (config.head_dim, config.dim, config.ffn_dim, config.image_tokens))
        and compiled("layer.cpp", weight.dtype) is not None
        and compiled("attention.cpp", weight.dtype, config.head_dim) is not None
    )
