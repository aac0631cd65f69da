"""The transformer's matrices laid out for decoding on a CPU, where a few rows at a time wait for the memory.

A matrix (out, in) is kept as (out / BLOCK, in / w, BLOCK, w), where w numbers take four bytes, as kernels/layer.cpp
reads it. `w1` and `w3` read the same input and are one matrix here. The results are those of the plain layers but for
rounding, and a row's do not depend on the number of rows.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editar.decoding.cpu.kernels import BLOCK, LANES, NUMBERS, compiled
from editar.model.transformer import EditARTransformer

FEW_ROWS = 128  # more are left to PyTorch's product, for which the matrix is put back into its plain order


class PackedLinear(nn.Module):
    """A linear layer without bias, from a weight (out, in) on the CPU; activations (..., in) in the weight's dtype.

    For inference only. Raises ValueError for a weight that can't be packed.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        if not _can_pack(weight):
            raise ValueError(f"a weight {tuple(weight.shape)} of {weight.dtype} on {weight.device} can't be packed")
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        self._packed = in_blocks(weight.detach().contiguous().view(torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).contiguous()
        if len(rows) > FEW_ROWS:
            return _many_rows(rows, in_rows(self._packed).view(self.dtype)).view(*x.shape[:-1], self.out_features)
        product = rows.new_empty(len(rows), self.out_features)
        kernels: Any = compiled("layer.cpp", self.dtype)
        kernels.multiply(self._packed, rows, product, len(rows), self.out_features, self.in_features)
        return product.view(*x.shape[:-1], self.out_features)


def _many_rows(rows: Tensor, matrix: Tensor) -> Tensor:
    if matrix.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        # In float32 PyTorch would take MKL, which needs 1.6 times as long as oneDNN on AMD's processors.
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, matrix, None, "none", [], "")
        return product
    return F.linear(rows, matrix)


def fills_blocks(matrix: Tensor) -> bool:
    """Whether a weight (out, in) can be laid out for kernels/layer.cpp."""
    return matrix.shape[0] % BLOCK == 0 and matrix.shape[1] % LANES == 0


def in_blocks(matrix: Tensor) -> Tensor:
    """(out, n) -> (out / BLOCK, n, BLOCK)."""
    return matrix.view(-1, BLOCK, matrix.shape[1]).mT.contiguous()


def in_rows(blocks: Tensor) -> Tensor:
    """(out / BLOCK, n, BLOCK) -> (out, n)."""
    return blocks.mT.flatten(0, 1)


class PackedFeedForward(nn.Module):
    """`transformer.FeedForward` for inference, with w1 and w3 as one layer."""

    def __init__(self, both: nn.Module, w2: nn.Module) -> None:
        super().__init__()
        self.both, self.w2 = both, w2

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.both(x).chunk(2, dim=-1)
        return self.w2(F.silu(gate) * value)


def can_pack(model: EditARTransformer) -> bool:
    """Whether the layers that every token reads can be packed.

    They can in float32 or bfloat16, on a CPU, if their sizes fill blocks and there is a compiler.
    """
    return all(_can_pack(matrix) for matrix in [*model.layers.parameters(), model.output.weight] if matrix.ndim == 2)


def _can_pack(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or weight.dtype not in NUMBERS:
        return False
    return fills_blocks(weight) and compiled("layer.cpp", weight.dtype) is not None


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
