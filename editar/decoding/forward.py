"""The transformer with a cache: everything before the target in one go, then one target token at a time.

Shape suffixes: B images, G rows that share an image (2 when guided), R = B * G rows, image by image: rows 2i and
2i + 1 belong to image i. N image tokens, L text positions, E text width, C channels, V vocabulary.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from editar.decoding.cache import LayerCache, attend_to_cache
from editar.model.transformer import Block, EditARTransformer


def step_block(
    block: Block,
    h_R1C: Tensor,
    table_1D2: Tensor,
    cache: tuple[Tensor, Tensor, Tensor, Tensor],
    slot: Tensor,
    bias: Tensor,
) -> Tensor:
    """One layer for one new position of every row: the same code for all layers, so that it is compiled once."""
    return block(h_R1C, table_1D2, partial(attend_to_cache, cache=cache, slot=slot, bias=bias))


class CachedTransformer:
    """A model and the state of one batch, at fixed addresses: a batch of the same shape may follow in it.

    `decode_one` reads the position from the device and nothing from it to the host, so that a CUDA graph of it serves
    every position. Attention runs over the slots in use, whose number grows by `stride`.
    """

    cache: type[LayerCache] = LayerCache

    def __init__(self, model: EditARTransformer, images: int, rows_each: int, *, stride: int = 64) -> None:
        config, weight = model.config, model.tok_embeddings.weight
        self.model = model
        self.images, self.rows_each, self.stride = images, rows_each, stride
        self.step_block: Callable[..., Tensor] = step_block
        self.layers = [self.cache(config, images, rows_each, like=weight) for _ in range(config.layers)]
        self.slot = torch.ones(1, dtype=torch.int64, device=weight.device)  # where the next fed token is kept
        self._slots = torch.arange(config.image_tokens, device=weight.device)
        self._bias = torch.zeros(2 * config.image_tokens, device=weight.device)
        self._bias[config.image_tokens] = math.log(config.text_length)
        self._first = config.image_tokens + config.text_length - 1  # position of slot 0, were it a target token's
        self._rotations = model.rotations(weight.device)

    @property
    def sizes(self) -> list[int]:
        """The numbers of slots that are in use, one after the other."""
        total = self.model.config.image_tokens
        return [*range(min(self.stride, total), total, self.stride), total]

    def prefill(self, condition_BN: Tensor, text_RLE: Tensor, null_text_R: Tensor | None = None) -> Tensor:
        """Run everything before the target: logits of its first token, (R, V) float32. null_text_R: bool."""
        self.model.check(condition_BN, text_RLE)
        if (rows := len(text_RLE)) != self.images * self.rows_each or len(condition_BN) != self.images:
            raise ValueError(
                f"{len(condition_BN)} conditions and {rows} texts; this cache takes {self.images} and "
                f"{self.images * self.rows_each}"
            )
        self.restart()
        return self.read(condition_BN, text_RLE, null_text_R, self.layers)

    def read(
        self, condition_BN: Tensor, text_RLE: Tensor, null_text_R: Tensor | None, layers: list[LayerCache]
    ) -> Tensor:
        """`prefill` into the caches of as many images."""
        tokens = self.model.config.image_tokens
        image_table, text_table = self._rotations[:tokens], self._rotations[tokens : self._first + 1]
        condition = self.model.tok_embeddings(condition_BN)
        self.model.run(condition, image_table, (layer.attend_image for layer in layers))
        text = self.model.cls_embedding(text_RLE, null_text_R)
        h = self.model.run(text, text_table, (layer.attend_text for layer in layers))
        return self.model.logits(self.model.norm(h[:, -1]))

    def restart(self) -> None:
        """Forget the fed tokens."""
        self.slot.fill_(1)
        self.resize(self.sizes[0])

    def resize(self, slots: int) -> None:
        for layer in self.layers:
            layer.resize(slots)

    def make_room(self, fed: int) -> int:
        """Have a slot for the token that follows `fed` fed ones; the slots in use."""
        if fed + 2 > self.layers[0].slots:
            self.resize(next(size for size in self.sizes if size >= fed + 2))
        return self.layers[0].slots

    def decode_one(self, token_R: Tensor) -> Tensor:
        """Feed every row's next target token; the logits of the one after it, (R, V) float32.

        There must be room for it (`make_room`).
        """
        slots = self.layers[0].slots
        tokens = self.model.config.image_tokens
        table = self._rotations.index_select(0, self.slot + self._first)
        bias = self._bias[: tokens + slots].clone()
        bias[tokens:].masked_fill_(self._slots[:slots] > self.slot, float("-inf"))
        h = self.model.tok_embeddings(token_R)[:, None]
        for block, layer in zip(self.model.layers, self.layers, strict=True):
            cache = (layer.prefix_k, layer.prefix_v, layer.own_k, layer.own_v)
            h = self.step_block(block, h, table, cache, self.slot, bias)
        self.slot += 1
        return self.model.logits(self.model.norm(h[:, -1]))
