"""How much memory a model needs, from the headers of its files, and how much there is."""

from pathlib import Path

import torch

from editar.config import TransformerConfig, VQConfig
from editar.model.files import ModelFiles, Part

PROCESS = 1.0e9  # Python, PyTorch and transformers take 0.8, one group of tensors on its way from a file the rest
# Feature maps of the finest level alive at once in the tokenizer. Measured with VQ-16 on a CPU, as the peak of resident
# memory over what the process held before: encoding 6.1 and decoding 5.6 of them at 512 pixels, 6.4 and 6.6 at 256
# (the first calls, in which libraries set themselves up; later ones less).
VQ_MAPS = 7


class NotEnoughMemory(ValueError):
    """The model with these settings does not fit; the message says what is needed, what there is and what helps."""


def require_memory(
    files: ModelFiles, *, device: str | torch.device, dtype: torch.dtype, width: int, int8: bool = False
) -> None:
    """Raise NotEnoughMemory if loading the model and decoding `width` images at a time takes more than is free."""
    free = free_bytes(torch.device(device))
    loaded = weights = _elements(files.transformer) * dtype.itemsize + _elements(files.vq) * 4
    if int8:  # made of the loaded ones, matrix by matrix, before anything else happens
        weights -= _int8_elements(files.transformer) * (dtype.itemsize - 1)
    text = files.text.to("cpu", dtype).nbytes if not isinstance(files.text, Part) else 0
    decoding = width * cache_bytes(files.transformer.config, dtype)
    decoding += working_bytes(files.vq.config, files.transformer.config)
    on_cpu = torch.device(device).type == "cpu"  # there the T5 is gone before decoding starts
    needed = PROCESS + max(loaded, weights + (max(text, decoding) if on_cpu else text + decoding))
    if free is None or needed <= free:
        return
    parts = [f"{weights / 1e9:.1f} of weights", f"{decoding / 1e9:.1f} to decode {width} at a time"]
    if text:
        parts.insert(1, f"{text / 1e9:.1f} for the text encoder" + " while it reads" * on_cpu)
    if int8:
        parts[0] = f"{loaded / 1e9:.1f} of weights while they are read, then {parts[0]}"
    helps = ["a smaller width (--batch-size of `python -m editar`)"] if width > 1 else []
    helps += ["dtype bfloat16 (--dtype bfloat16)"] if dtype == torch.float32 else []
    raise NotEnoughMemory(
        f"{files.folder} needs about {needed / 1e9:.1f} GB of memory ({', '.join(parts)}), but {device} has "
        f"{free / 1e9:.1f} GB free; " + (" and ".join(helps) + " need less" if helps else "a larger machine is needed")
    )


def cache_bytes(config: TransformerConfig, dtype: torch.dtype) -> int:
    """Keys and values of all positions of one image, for both branches of guidance: no decoder keeps more."""
    positions = 2 * config.image_tokens + config.text_length
    return 2 * 2 * config.layers * positions * config.dim * dtype.itemsize


def working_bytes(vq: VQConfig, transformer: TransformerConfig) -> int:
    """What the tokenizer needs besides its weights for one image; it takes one at a time."""
    side = transformer.grid * vq.downsampling
    return VQ_MAPS * 4 * vq.channels * side * side


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a new allocation can count on; None where that is not known (a CPU without Linux)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return min([free, *_container_limit()])


def _container_limit() -> list[int]:
    """What a container (cgroup v2) may still take, page cache not counted; empty without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        cached = next(
            int(line.split()[1])
            for line in (group / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, StopIteration):  # "max" is no number: no limit
        return []
    return [limit - used + cached]


def _elements(part: Part) -> int:
    return sum(tensor.numel() for tensor in part.mapped().values())


def _int8_elements(transformer: Part) -> int:
    """Of the matrices that become integers: those of the layers, and the output's."""
    state = transformer.mapped()
    return sum(t.numel() for name, t in state.items() if t.ndim == 2 and name.startswith(("layers.", "output.")))
