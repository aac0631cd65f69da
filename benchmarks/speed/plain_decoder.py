"""The opponent of `python -m benchmarks.speed decode`: a cached decoder that does what the released sampler does.

Both branches of guidance go through everything, the image prefix included. The cache is preallocated for the whole
sequence, a multiple of 8 positions, and every new token attends to all of it, used or not, under a mask. Logits are
guided and filtered, and a token is drawn with `multinomial`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from editar.config import SamplingConfig
from editar.decoding.sampling import keep_top_k
from editar.model.transformer import Attend, EditARTransformer


class PlainDecoder:
    """B images, rows [conditional; unconditional]. Sequence: N image tokens, L text positions, N target tokens."""

    def __init__(self, model: EditARTransformer, images: int, settings: SamplingConfig) -> None:
        if not settings.guided or settings.top_p < 1:
            raise ValueError("the plain decoder is there for the published settings: guidance above 1, top_p 1")
        config, weight = model.config, model.tok_embeddings.weight
        self.model, self.settings = model, settings
        self.before = config.image_tokens + config.text_length
        length = -(-(self.before + config.image_tokens) // 8) * 8
        shape = (config.layers, 2 * images, config.heads, length, config.head_dim)
        self.keys, self.values = weight.new_zeros(shape), weight.new_zeros(shape)
        self.mask = torch.ones(length, length, dtype=torch.bool, device=weight.device).tril()

    def prefill(self, condition_BN: Tensor, text_BLE: Tensor) -> Tensor:
        """Run all that is before the target; its first tokens, (B, 1)."""
        images = len(condition_BN)
        null = torch.arange(2, device=text_BLE.device).repeat_interleave(images).bool()
        condition = self.model.tok_embeddings(condition_BN).repeat(2, 1, 1)
        text = self.model.cls_embedding(text_BLE.repeat(2, 1, 1), null)
        return self._run(torch.cat([condition, text], dim=1), torch.arange(self.before, device=condition.device))

    def step(self, token_B1: Tensor, fed: int) -> Tensor:
        """Feed target token number `fed`; the next, (B, 1)."""
        h = self.model.tok_embeddings(torch.cat([token_B1, token_B1]))
        return self._run(h, torch.tensor([self.before + fed], device=h.device))

    def _run(self, h_RTC: Tensor, positions_T: Tensor) -> Tensor:
        table = self.model.rotations(h_RTC.device)[positions_T]
        attends = (self._attend(layer, positions_T) for layer in range(len(self.keys)))
        h = self.model.run(h_RTC, table, attends)
        logits = self.model.logits(self.model.norm(h))[:, -1]
        conditional, unconditional = logits.chunk(2)
        guided = unconditional + self.settings.guidance * (conditional - unconditional)
        if self.settings.greedy:
            return guided.argmax(-1, keepdim=True)
        kept = keep_top_k(guided / self.settings.temperature, self.settings.top_k)
        return torch.multinomial(kept.softmax(-1), 1)

    def _attend(self, layer: int, positions_T: Tensor) -> Attend:
        keys, values, mask = self.keys[layer], self.values[layer], self.mask[positions_T]

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys[:, :, positions_T] = k
            values[:, :, positions_T] = v
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)

        return attend
