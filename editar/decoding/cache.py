"""Keys and values kept while a batch's target tokens are drawn, and how new positions attend to them.

The image prefix comes first and attention is causal, so its keys and values are the same in both branches of guidance:
they are kept once, and the branches' queries read them together, as two queries of one sequence.

Text keys are zero (`rotation_table`), so that every query gives each of the L text positions the logit 0. Together they
weigh L * exp(0) = exp(log L) and add L * mean(v): exactly what a single position does whose logit is log L and whose
value is their mean. That position is slot 0 of a row's own cache; target token i is in slot i + 1.

Shape suffixes: B images, G rows that share an image (2 when guided), R = B * G rows, image by image, W new positions
of each row, H heads, D head size, N image tokens, L text positions, S positions attended to.
"""

from copy import copy
from typing import Self

import torch
from torch import Tensor

from editar.config import TransformerConfig
from editar.model.transformer import attend_causally


class LayerCache:
    """One layer's keys and values: `prefix_*` (B, H, N, D) of the condition image, `own_*` (B, H, G, S, D) of each row.

    The own ones lie in buffers for all N slots (text, and every target token but the last, which is never fed), of
    which the first S are used as one contiguous block: matrix products read strided ones many times slower on a CPU.
    """

    def __init__(self, config: TransformerConfig, images: int, rows_each: int, like: Tensor) -> None:
        prefix = (images, config.heads, config.image_tokens, config.head_dim)
        self.prefix_k, self.prefix_v = like.new_empty(prefix), like.new_empty(prefix)
        size = rows_each * self.prefix_k.numel()
        self._buffers = like.new_empty(size), like.new_empty(size)
        self._rows_each = rows_each
        self.own_k, self.own_v = self._views(slots=1)

    @property
    def slots(self) -> int:
        return self.own_k.shape[3]

    def resize(self, slots: int) -> None:
        """Use that many slots; those in use keep what they hold, as far as they remain, and new ones are zero."""
        if slots == self.slots:
            return
        kept = min(slots, self.slots)
        old = [own[..., :kept, :].clone() for own in (self.own_k, self.own_v)]
        self.own_k, self.own_v = self._views(slots)
        for own, values in zip((self.own_k, self.own_v), old, strict=True):
            own[..., :kept, :] = values
            own[..., kept:, :] = 0  # masked, but a weight of 0 times NaN would be NaN

    def of_image(self, image: int) -> Self:
        """The part that belongs to one image, in the same memory; it can't be resized."""
        part = copy(self)
        here = slice(image, image + 1)
        part.prefix_k, part.prefix_v = self.prefix_k[here], self.prefix_v[here]
        part.own_k, part.own_v = self.own_k[here], self.own_v[here]
        return part

    def _views(self, slots: int) -> tuple[Tensor, Tensor]:
        images, heads, _, size = self.prefix_k.shape
        shape = (images, heads, self._rows_each, slots, size)
        count = images * heads * self._rows_each * slots * size
        return self._buffers[0][:count].view(shape), self._buffers[1][:count].view(shape)

    def keep_image_keys(self, k_BHND: Tensor) -> None:
        self.prefix_k.copy_(k_BHND)

    def clear_text_key(self) -> None:
        """The key in slot 0 is zero."""
        self.own_k[..., 0, :] = 0

    def attend_image(self, q_BHND: Tensor, k_BHND: Tensor, v_BHND: Tensor) -> Tensor:
        """The condition image's positions."""
        self.keep_image_keys(k_BHND)
        self.prefix_v.copy_(v_BHND)
        return attend_causally(q_BHND, k_BHND, v_BHND)

    def attend_text(self, q_RHLD: Tensor, k_RHLD: Tensor, v_RHLD: Tensor) -> Tensor:
        """The text's positions. Their queries are zero too: each takes the plain mean of all values up to its own."""
        rows, _, length, _ = v_RHLD.shape
        images, heads, prefix, size = self.prefix_v.shape
        v_BHGLD = v_RHLD.float().view(images, self._rows_each, heads, length, size).transpose(1, 2)
        self.clear_text_key()
        self.own_v[..., 0, :] = v_BHGLD.mean(3)
        total = self.prefix_v.sum(2, dtype=torch.float32)[:, :, None, None] + v_BHGLD.cumsum(3)
        count = torch.arange(prefix + 1, prefix + length + 1, device=v_RHLD.device)
        mean = (total / count[:, None]).type_as(v_RHLD)
        return mean.transpose(1, 2).reshape(rows, heads, length, size)


def attend_to_cache(
    q_RHWD: Tensor,
    k_RHWD: Tensor,
    v_RHWD: Tensor,
    cache: tuple[Tensor, Tensor, Tensor, Tensor],
    slots_BW: Tensor,
    bias_BWS: Tensor,
) -> Tensor:
    """W new target positions of every row: kept in their slots, they attend to all that is kept.

    cache: a LayerCache's prefix_k, prefix_v, own_k and own_v. slots_BW: int64, of each image's new positions. bias_BWS:
    float32, added to the logits of the N prefix positions and the own slots.
    """
    prefix_k, prefix_v, own_k, own_v = cache
    images, heads, each, slots, size = own_k.shape
    prefix, new = prefix_k.shape[2], slots_BW.shape[1]

    def by_image(x_RHWD: Tensor) -> Tensor:
        return x_RHWD.reshape(images, each, heads, new, size).transpose(1, 2)  # (B, H, G, W, D)

    places = slots_BW[:, None, None, :, None].expand(images, heads, each, new, size)
    own_k.scatter_(3, places, by_image(k_RHWD))
    own_v.scatter_(3, places, by_image(v_RHWD))
    q = by_image(q_RHWD).reshape(images * heads, each * new, size)
    to_prefix = torch.bmm(q, prefix_k.flatten(0, 1).mT).view(images, heads, each, new, prefix)
    to_own = torch.bmm(q.reshape(-1, new, size), own_k.flatten(0, 2).mT).view(images, heads, each, new, slots)
    logits = torch.add(bias_BWS[:, None, None], torch.cat([to_prefix, to_own], dim=-1), alpha=size**-0.5)  # float32
    weights = logits.softmax(-1).type_as(q)
    from_prefix = torch.bmm(weights[..., :prefix].reshape(q.shape[0], -1, prefix), prefix_v.flatten(0, 1))
    from_own = torch.bmm(weights[..., prefix:].reshape(-1, new, slots), own_v.flatten(0, 2))
    taken = from_prefix.view(images, heads, each, new, size) + from_own.view(images, heads, each, new, size)
    return taken.transpose(1, 2).reshape(images * each, heads, new, size)
