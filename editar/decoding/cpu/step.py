"""A step of one or a few tokens on a CPU with the functions of kernels/ between the matrix products.

Shape suffixes: B images, G rows that share an image (2 when guided), R = B * G rows, W new positions of each row, P =
R * W positions, H heads, D head size, N image tokens, C channels, V vocabulary.
"""

import math
from typing import Any

import torch
from torch import Tensor

from editar.config import MOST_WINDOW, TransformerConfig
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

    An image's logits have the same bits at every number of images and of new positions: its rows in the products of a
    step do not depend on the number of rows, and what comes before the target, which PyTorch's products take, is read
    image by image.
    """

    cache = TiledCache

    def __init__(self, model: EditARTransformer, images: int, rows_each: int, window: int = 1) -> None:
        """window: new positions of a row at a time, at most MOST_WINDOW; fewer may come."""
        assert 1 <= window <= MOST_WINDOW
        if not can_fuse(model):
            raise ValueError("this model's steps can't be fused; CachedTransformer takes it")
        config, weight = model.config, model.tok_embeddings.weight
        super().__init__(model, images, rows_each, stride=config.image_tokens)
        self._layer: Any = compiled("layer.cpp", weight.dtype)
        attention: Any = compiled("attention.cpp", weight.dtype, config.head_dim)
        self._attend = attention.attend_guided if rows_each == 2 else attention.attend_single
        positions = images * rows_each * window
        self._x = weight.new_empty(positions, config.dim)
        self._gated = weight.new_empty(positions, config.ffn_dim)
        self._nothing = weight.new_zeros(positions, config.dim)
        self._logits = torch.empty(positions * config.heads * 2 * config.image_tokens)

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

    def decode_many(self, token_RW: Tensor) -> Tensor:
        model, new = self.model, token_RW.shape[1]
        tables = self._rotations[(self.slot_B + self._first)[:, None] + self._slots[:new]]
        h = model.tok_embeddings(token_RW.flatten())
        delta = self._nothing[: len(h)]
        blocks: Any = model.layers
        for block, layer in zip(blocks, self.layers, strict=True):
            x = self._normalise(h, delta, block.attention_norm)
            delta = block.attention.wo.step(self.attend(block.attention.wqkv.step(x), tables, layer))
            x = self._normalise(h, delta, block.ffn_norm)
            delta = block.feed_forward.w2.step(self._gate(block.feed_forward.both.step(x)))
        output: Any = model.output
        return output.step(self._normalise(h, delta, model.norm)).float().unflatten(0, token_RW.shape)

    def _normalise(self, h_PC: Tensor, delta_PC: Tensor, norm: RMSNorm) -> Tensor:
        """Add delta to h, in place, and normalise that."""
        x = self._x[: len(h_PC)]
        self._layer.add_and_normalise(h_PC, delta_PC, norm.weight, float(norm.eps), x, *h_PC.shape)
        return x

    def attend(self, qkv: Tensor, tables_BWD2: Tensor, layer: LayerCache) -> Tensor:
        """Keep the new tokens' keys and values from `slot_B` on and attend to all that is kept: (P, 3 * C) -> (P, C).

        tables_BWD2: the rotations of the tokens' positions, (B, W, D / 2, 2) float32. The result is overwritten by the
        next call.
        """
        c = self.model.config
        x = self._x[: len(qkv)]
        caches = layer.prefix_k, layer.prefix_v, layer.own_k, layer.own_v
        sizes = self.images, c.heads, c.image_tokens, c.image_tokens, tables_BWD2.shape[1]
        self._attend(qkv, tables_BWD2, *caches, self._logits, x, self.slot_B, *sizes, math.log(c.text_length))
        return x

    def _gate(self, both: Tensor) -> Tensor:
        gated = self._gated[: len(both)]
        self._layer.gate(both, gated, *gated.shape)
        return gated


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
