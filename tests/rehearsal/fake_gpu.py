"""A GPU that isn't there: PyTorch's fake tensors have a device, a dtype and a size, but no values.

Operators check devices and shapes as on the real one, and whatever would need a value raises.
"""

import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators that take the numbers of all their tensors as of one dtype.
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "scaled_dot_product", "native_layer_norm")
WIDE = (torch.float64, torch.complex128)


class Fault(AssertionError):
    """What a GPU would refuse, wait for or be slow at."""


class Walk(TorchDispatchMode):
    """Looks at each operator, below autocast and autograd.

    float64: the functions that may make such numbers on the GPU. operators: how many ran. peak: the most bytes of
    tensors on the GPU at once, those included that were there before.
    """

    def __init__(self, float64: Sequence[str] = ()) -> None:
        super().__init__()
        self.float64 = float64
        self.operators = self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        try:
            result = func(*args, **(kwargs or {}))
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise Fault(f"the host waits for the device in {name}") from error
        inputs, outputs = (
            [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)] for values in ((args, kwargs), result)
        )
        on_gpu = [tensor for tensor in outputs if tensor.device.type == "cuda"]
        from_gpu = any(tensor.device.type == "cuda" for tensor in inputs)
        if from_gpu and any(tensor.device.type == "cpu" and not _planned(name) for tensor in outputs):
            raise Fault(f"the host waits for the device in {name}")
        if any(tensor.dtype in WIDE for tensor in on_gpu) and not self._may_be_wide():
            raise Fault(f"{name} makes float64 numbers on the device")
        dtypes = {tensor.dtype for tensor in inputs if tensor.is_floating_point()}
        if name.lstrip("_").startswith(PRODUCTS) and len(dtypes) > 1:
            raise Fault(f"{name} takes {dtypes}")
        if on_gpu:
            self.operators += 1
        for tensor in on_gpu:
            self._hold(tensor)
        return result

    def _may_be_wide(self) -> bool:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_name not in self.float64:
            frame = frame.f_back
        return frame is not None

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if (key := storage._cdata) not in self._known:
            self._known.add(key)
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


def _planned(name: str) -> bool:
    """Of the operators' own: a seed and an offset of attention's dropout are on the CPU, and nothing waits for them."""
    return "scaled_dot_product" in name


def _apply(self: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
    """PyTorch's own exchanges a parameter's insides, which fake tensors do not allow: new parameters in their place.
    Real ones become fake."""
    for module in self.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[key] = nn.Parameter(fn(_fake(parameter)), parameter.requires_grad)
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = fn(_fake(buffer))
    return self


def _fake(value: Tensor) -> Tensor:
    if isinstance(value, FakeTensor):
        return value.detach()
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)


@contextmanager
def fake_gpu(float64: Sequence[str] = (), autocast: torch.dtype | None = None) -> Iterator[Walk]:
    """What is made inside is fake. autocast: `torch.autocast` itself takes no effect without a GPU."""
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(nn.Module, "_apply", _apply)
        if autocast is not None:
            torch.set_autocast_dtype("cuda", autocast)
            torch.set_autocast_enabled("cuda", True)
            stack.callback(torch.set_autocast_enabled, "cuda", False)
        yield stack.enter_context(Walk(float64))
