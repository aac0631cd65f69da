"""The transformer's matrices as 8-bit integers, for CPUs: a token costs half of bfloat16's memory traffic.

Weights are symmetric, one scale per output channel. Activations keep about 13 bits: a row x, scaled by its largest
magnitude to 63, is split into two whole-number digits, x = high + low / 126, that go through the integer product as two
rows. So the effect on the logits is that of the weights' rounding alone; sums of integers are exact, and a row's result
does not depend on the rows beside it. Digits of 7 bits cannot saturate the 16-bit sums of processors without VNNI.

FBGEMM, behind `torch.ops.quantized`, reads its packed weights at the memory's speed, with two or four rows alike;
`torch._weight_int8pack_mm` converts them to float32 and is hardly faster than bfloat16's product, and torchao's eager
int8 makes a bfloat16 copy at each use.
"""

import warnings

import torch
from torch import Tensor, nn

ENGINE = "fbgemm"
DIGIT = 63


class Int8Linear(nn.Module):
    """A linear layer without bias, from float weights (out, in); activations (..., in) and results in their dtype."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        require_int8(weight.device)
        self.out_features, self.in_features = weight.shape
        self._packed = _pack(weight.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).float()
        count = len(rows)
        scale = rows.abs().amax(1, keepdim=True).clamp_(min=1e-30).div_(DIGIT)
        exact = rows / scale
        high = exact.round()
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            torch.cat([high, exact.sub_(high).mul_(2 * DIGIT)]), 1.0, DIGIT + 1, self._packed
        )
        result = product[:count].add_(product[count:], alpha=0.5 / DIGIT).mul_(scale)
        return result.type_as(x).view(*x.shape[:-1], self.out_features)


def _pack(weight: Tensor) -> torch.ScriptObject:
    scale = weight.abs().amax(1).clamp(min=1e-30) / 127
    whole = (weight / scale[:, None]).round().to(torch.int8)
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = ENGINE
    try:
        with warnings.catch_warnings():  # PyTorch has no other way to FBGEMM's kernels yet, and warns that this will go
            warnings.simplefilter("ignore", UserWarning)
            zero = torch.zeros(len(scale), dtype=torch.int64)
            quantised = torch._make_per_channel_quantized_tensor(whole, scale.double(), zero, 0)
            return torch.ops.quantized.linear_prepack(quantised, None)
    finally:
        torch.backends.quantized.engine = before


def require_int8(device: str | torch.device) -> None:
    """Raise ValueError where int8 weights cannot work: on a GPU, or in a PyTorch without FBGEMM (not an x86 CPU's)."""
    if torch.device(device).type != "cpu" or ENGINE not in torch.backends.quantized.supported_engines:
        raise ValueError(
            f"int8 weights need an x86 CPU and a PyTorch with {ENGINE}, and the device is {str(device)!r}; use "
            "--device cpu on such a machine, or bfloat16 (--dtype bfloat16) instead of --int8"
        )
