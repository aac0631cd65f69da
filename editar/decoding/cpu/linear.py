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
        self.out_features, self.in_features = weight.shape
        self._packed = in_blocks(self._stored(weight.detach()).contiguous().view(torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).contiguous()
        product = self._many_rows(rows, in_rows(self._packed)) if len(rows) > FEW_ROWS else self.step(rows)
        return product.view(*x.shape[:-1], self.out_features)

    def step(self, rows: Tensor) -> Tensor:
        """The same of contiguous rows (n, in), whose products have the same bits for every n."""
        product = rows.new_empty(len(rows), self.out_features)
        self._few_rows(compiled("layer.cpp", rows.dtype), rows, product)
        return product

    def _stored(self, weight: Tensor) -> Tensor:
        """The numbers that are kept of a weight (out, in)."""
        if not _can_pack(weight):
            raise ValueError(f"a weight {tuple(weight.shape)} of {weight.dtype} on {weight.device} can't be packed")
        self.dtype = weight.dtype
        return weight

    def _few_rows(self, kernels: Any, rows: Tensor, product: Tensor) -> None:
        kernels.multiply(self._packed, rows, product, len(rows), self.out_features, self.in_features)

    def _many_rows(self, rows: Tensor, matrix: Tensor) -> Tensor:
        matrix = matrix.view(self.dtype)
        if matrix.dtype == torch.float32 and torch.backends.mkldnn.is_available():
            # In float32 PyTorch would take MKL, which needs 1.6 times as long as oneDNN on AMD's processors.
            product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, matrix, None, "none", [], "")
            return product
        return F.linear(rows, matrix)


class Int8Linear(PackedLinear):
    """A PackedLinear of any float weight, rounded to 8-bit integers: a token costs half of bfloat16's memory traffic.

    Activations and results are in any dtype. Weights are symmetric, one scale per output channel; sums are float32. So
    the effect on the logits is that of the weights' rounding alone.
    """

    def _stored(self, weight: Tensor) -> Tensor:
        require_int8(weight.device)
        if not fills_blocks(weight):
            raise ValueError(f"int8 weights come in blocks of {BLOCK} x {LANES}, and one has {tuple(weight.shape)}")
        weight = weight.float()
        self._scales = weight.abs().amax(1).clamp(min=1e-30) / 127
        return (weight / self._scales[:, None]).round().to(torch.int8)

    def _few_rows(self, kernels: Any, rows: Tensor, product: Tensor) -> None:
        sizes = len(rows), self.out_features, self.in_features
        kernels.multiply_int8(self._packed, self._scales, rows, product, *sizes)

    def _many_rows(self, rows: Tensor, matrix: Tensor) -> Tensor:
        return F.linear(rows, matrix.view(torch.int8).to(rows.dtype)).mul_(self._scales)


def require_int8(device: str | torch.device) -> None:
    """Raise ValueError where int8 weights cannot work: on a GPU, or without a C++ compiler."""
    if torch.device(device).type != "cpu" or compiled("layer.cpp", torch.bfloat16) is None:
        raise ValueError(
            f"int8 weights need a CPU and a C++ compiler (g++, say), and the device is {str(device)!r}; use "
            "--device cpu on a machine that has one, or bfloat16 (--dtype bfloat16) instead of --int8"
        )


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
