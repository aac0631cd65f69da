"""Linear layers with 8-bit weights, for decoding on a CPU: a token costs half of bfloat16's memory traffic.

Weights are symmetric, one scale per output channel; sums are float32. So the effect on the logits is that of the
weights' rounding alone, and a row's result does not depend on the rows beside it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editar.decoding.cpu.kernels import BLOCK, LANES, compiled
from editar.decoding.cpu.linear import FEW_ROWS, fills_blocks, in_blocks, in_rows


class Int8Linear(nn.Module):
    """A linear layer without bias, from float weights (out, in); activations (..., in) and results in their dtype."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        require_int8(weight.device)
        self.out_features, self.in_features = weight.shape
        if not fills_blocks(weight):
            raise ValueError(f"int8 weights come in blocks of {BLOCK} x {LANES}, and one has {tuple(weight.shape)}")
        weight = weight.detach().float()
        self._scales = weight.abs().amax(1).clamp(min=1e-30) / 127
        whole = (weight / self._scales[:, None]).round().to(torch.int8)
        self._packed = in_blocks(whole.view(torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).contiguous()
        if len(rows) > FEW_ROWS:
            return F.linear(x, in_rows(self._packed).view(torch.int8).to(x.dtype)).mul_(self._scales)
        product = rows.new_empty(len(rows), self.out_features)
        kernels: Any = compiled("layer.cpp", x.dtype)
        tensors = self._packed, self._scales, rows, product
        kernels.multiply_int8(*tensors, len(rows), self.out_features, self.in_features)
        return product.view(*x.shape[:-1], self.out_features)


def require_int8(device: str | torch.device) -> None:
    """Raise ValueError where int8 weights cannot work: on a GPU, or without a C++ compiler."""
    if torch.device(device).type != "cpu" or compiled("layer.cpp", torch.bfloat16) is None:
        raise ValueError(
            f"int8 weights need a CPU and a C++ compiler (g++, say), and the device is {str(device)!r}; use "
            "--device cpu on a machine that has one, or bfloat16 (--dtype bfloat16) instead of --int8"
        )
