"""The transformer with a cache: everything before the target in one go, then one or a few target tokens at a time.

Shape suffixes: B images, G rows that share an image (2 when guided), R = B * G rows, image by image: rows 2i and
2i + 1 belong to image i. W new positions of each row, N image tokens, L text positions, E text width, C channels,
S positions attended to, V vocabulary.
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
    h_RWC: Tensor,
    table_RWD2: Tensor,
    cache: tuple[Tensor, Tensor, Tensor, Tensor],
    slots_BW: Tensor,
    bias_BWS: Tensor,
) -> Tensor:
    """One layer for the new positions of every row: the same code for all layers, so that it is compiled once."""
    return block(h_RWC, table_RWD2, partial(attend_to_cache, cache=cache, slots_BW=slots_BW, bias_BWS=bias_BWS))


class CachedTransformer:
    """A model and the state of one batch, at fixed addresses: a batch of the same shape may follow in it.

    `decode_many` reads the positions from the device and nothing from it to the host, so that a CUDA graph of it serves
    every position. Attention runs over the slots in use, whose number grows by `stride`.
    """

    cache: type[LayerCache] = LayerCache

    def __init__(self, model: EditARTransformer, images: int, rows_each: int, *, stride: int = 64) -> None:
        config, weight = model.config, model.tok_embeddings.weight
        self.model = model
        self.images, self.rows_each, self.stride = images, rows_each, stride
        self.step_block: Callable[..., Tensor] = step_block
        self.layers = [self.cache(config, images, rows_each, like=weight) for _ in range(config.layers)]
        self.slot_B = torch.ones(images, dtype=torch.int64, device=weight.device)  # where the next fed token is kept
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
        self.slot_B.fill_(1)
        self.resize(self.sizes[0])

    def resize(self, slots: int) -> None:
        for layer in self.layers:
            layer.resize(slots)

    def make_room(self, fed: int, new: int = 1) -> int:
        """Have slots for that many new tokens behind `fed` fed ones; the slots in use."""
        if (needed := fed + 1 + new) > self.layers[0].slots:
            self.resize(next(size for size in self.sizes if size >= needed))
        return self.layers[0].slots

    def decode_one(self, token_R: Tensor) -> Tensor:
        """Feed every row's next target token; the logits of the one after it, (R, V) float32.

        There must be room for it (`make_room`).
        """
        logits = self.decode_many(token_R[:, None])[:, 0]
        self.slot_B += 1
        return logits

    def decode_many(self, token_RW: Tensor) -> Tensor:
        """Feed every row's next W target tokens, each image's from its own place on (`slot_B`, which stays): the
        logits of what follows each, (R, W, V) float32.

        There must be room for them (`make_room`). What was kept in their slots before is overwritten.
        """
        slots = self.layers[0].slots
        tokens = self.model.config.image_tokens
        slots_BW = self.slot_B[:, None] + self._slots[: token_RW.shape[1]]
        table = self._rotations[slots_BW + self._first].repeat_interleave(self.rows_each, 0)
        bias = self._bias[: tokens + slots].repeat(*slots_BW.shape, 1)
        bias[..., tokens:].masked_fill_(self._slots[:slots] > slots_BW[..., None], float("-inf"))
        h = self.model.tok_embeddings(token_RW)
        for block, layer in zip(self.model.layers, self.layers, strict=True):
            cache = (layer.prefix_k, layer.prefix_v, layer.own_k, layer.own_v)
            h = self.step_block(block, h, table, cache, slots_BW, bias)
        return self.model.logits(self.model.norm(h))
