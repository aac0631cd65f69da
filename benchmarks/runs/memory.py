"""The peak of memory of a part of a process: on the GPU where there is one, else in main memory.

Methods run one after another in one process, so the peak has to be forgotten in between. Linux does that for main
memory (/proc/self/clear_refs); elsewhere, or where that may not be written, the peak is that of the process since it
began, and `kind` says so. What other processes hold, an external method's for one, is not in it.
"""

import gc
import resource
import sys
from pathlib import Path
from types import ModuleType

GPU, MAIN, PROCESS = "GPU", "main", "main, since the process began"

_FORGET_PEAK = "5"  # see proc(5)


def reset_peak() -> None:
    """From now on `peak_bytes` is what is held from now on, where `kind` isn't PROCESS."""
    if cuda := _cuda():
        if cuda.is_initialized():
            cuda.reset_peak_memory_stats()
    else:
        _clear_refs(_FORGET_PEAK)


def kind() -> str:
    """What is measured here: GPU, MAIN or PROCESS."""
    if _cuda():
        return GPU
    return MAIN if _status("VmHWM") is not None and _clear_refs("") else PROCESS


def held_bytes() -> int:
    """What the process holds now."""
    cuda = _cuda()
    return cuda.memory_allocated() if cuda else _status("VmRSS") or _highest()


def peak_bytes() -> int:
    """The most the process held since `reset_peak`."""
    cuda = _cuda()
    return cuda.max_memory_allocated() if cuda else _status("VmHWM") or _highest()


def release() -> None:
    """Gives back what nothing refers to any more, PyTorch's store of GPU memory with it."""
    gc.collect()
    if cuda := _cuda():
        cuda.empty_cache()


def _cuda() -> ModuleType | None:
    torch = sys.modules.get("torch")  # not imported for this alone
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def _clear_refs(command: str) -> bool:
    """Whether Linux lets the command be written; "" only asks. Where it doesn't, kind() is PROCESS."""
    try:
        return Path("/proc/self/clear_refs").write_text(command) >= 0
    except OSError:
        return False


def _status(name: str) -> int | None:
    """A line of Linux' account of this process, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    return None if found is None else int(found.split()[1]) * 1024


def _highest() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
