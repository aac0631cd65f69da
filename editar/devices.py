"""Whether a device can be computed on."""

import torch


def require_device(device: str | torch.device) -> None:
    """Raise ValueError for a device that PyTorch doesn't know, or can't use on this machine."""
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
