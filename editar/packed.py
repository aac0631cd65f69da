"""The transformer's matrices laid out for decoding on a CPU, where a few rows at a time wait for the memory.

oneDNN reads weights in its own blocked order at the memory's speed; PyTorch's linear layer hands it plain ones, which
it reads at a third of that in float32 and at two thirds in bfloat16 with the two rows of guidance. `w1` and `w3` read
the same input and are one matrix here. The results are those of the plain layers but for rounding.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editar.transformer import EditARTransformer

ROWS = 2  # that the layout is made for; of those tried the fastest for 2 to 16 rows, and for 1144 as good as plain
# Fewer rows are repeated up to so many: oneDNN's kernel for two reads 20 GB/s where that for four reads 29 (Zen 4).
LEAST_ROWS = 4


class PackedLinear(nn.Module):
    """A linear layer without bias, from a weight (out, in) on the CPU; activations (..., in) in the weight's dtype."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        if len(rows) < LEAST_ROWS:
            rows = torch.cat([rows] * math.ceil(LEAST_ROWS / len(rows)))
        product = torch.ops.mkldnn._linear_pointwise(rows, self._packed, None, "none", [], "")
        return product[: x.shape[:-1].numel()].view(*x.shape[:-1], self.out_features)


class PackedFeedForward(nn.Module):
    """`transformer.FeedForward` for inference, with w1 and w3 as one layer."""

    def __init__(self, both: nn.Module, w2: nn.Module) -> None:
        super().__init__()
        self.both, self.w2 = both, w2

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.both(x).chunk(2, dim=-1)
        return self.w2(F.silu(gate) * value)


def can_pack(weight: Tensor) -> bool:
    """Whether this machine's oneDNN has kernels for such weights, float32 or bfloat16."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


@torch.no_grad()
def pack(model: EditARTransformer, make: Callable[[Tensor], nn.Module] = PackedLinear) -> None:
    """Replace the linear layers that every token reads, in place, one block's after the other, so that hardly more
    memory is taken. The model can no longer be trained, cast or saved. make: from a weight (out, in) to a layer."""
    blocks: Any = model.layers
    for block in blocks:
        old = block.feed_forward
        block.attention.wqkv = make(block.attention.wqkv.weight)
        block.attention.wo = make(block.attention.wo.weight)
        block.feed_forward = PackedFeedForward(make(torch.cat([old.w1.weight, old.w3.weight])), make(old.w2.weight))
    model.output = make(model.output.weight)  # type: ignore[assignment]
