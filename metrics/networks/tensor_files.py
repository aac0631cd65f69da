"""Weights as the publishers store them, read without running what a file may hold."""

import ast
import zipfile
from pathlib import Path

import torch
from torch import Tensor

MAX_CODE = 16 * 2**20  # bytes of one file of a TorchScript archive; Inception's have some kilobytes
# What a convolutional network consists of. Other operations of TorchScript write and read files.
OPERATIONS = frozenset({
    "_convolution", "adaptive_avg_pool2d", "add", "add_", "avg_pool2d", "batch_norm", "cat", "conv2d", "dropout",
    "flatten", "linear", "max_pool2d", "mean", "relu", "relu_",
})  # fmt: skip


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict, at the top of a pickle or of a safetensors file, or under state_dict in it.

    Nothing in the file is executed. Raises ValueError that names the file.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged pickle: UnpicklingError, RuntimeError, EOFError, KeyError ...
        raise ValueError(
            f"{path} holds more than tensors and plain values, or is cut off, and is not loaded: {error}"
        ) from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no tensors by name: it is no file of weights of this network")
    return state


def check_torchscript(path: Path) -> None:
    """Raises ValueError where the program in a TorchScript file is more than a network.

    It runs without Python, but it runs, from the moment the file is loaded, and could write files.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".py"):
                if member.file_size > MAX_CODE:
                    raise ValueError(f"{member.filename} in it has {member.file_size} bytes, more than {MAX_CODE}")
                _check_code(archive.read(member).decode("utf-8"), member.filename)


def _check_code(code: str, name: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Attribute):
            of_torch = isinstance(called.value, ast.Name) and called.value.id == "torch"
            if called.attr in OPERATIONS if of_torch else called.attr == "forward":
                continue
        elif isinstance(called, ast.Name) and called.id == "annotate":
            continue
        raise ValueError(f"{name} in it calls {ast.unparse(called)}, which no convolutional network needs")
