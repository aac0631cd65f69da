"""Whether a device can be computed on, and whether its memory was too small."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# What libraries say that raise neither MemoryError nor OutOfMemoryError: of main memory, the second of files that are
# mapped into it, and from inside NVIDIA's.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "Cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, the GPU's or main memory."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in _OUT_OF_MEMORY)


def require_device(device: "str | torch.device") -> None:
    """Raise ValueError for a device that PyTorch doesn't know, or can't use on this machine."""
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}, which PyTorch does not know; use cpu or cuda (--device)") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {str(device)!r}, but PyTorch finds no CUDA GPU here; use cpu (--device cpu)")
    try:
        usable = torch.ones(1, device=device).tolist() == [1]
    except (RuntimeError, NotImplementedError, AssertionError):  # no such chip, or no support for it in this PyTorch
        usable = False
    if not usable:
        raise ValueError(f"device is {str(device)!r}, which PyTorch can't use here; use cpu or cuda (--device)")
