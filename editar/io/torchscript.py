"""TorchScript files, which hold a program: only networks are let through."""

import ast
import zipfile
from pathlib import Path

MAX_CODE = 16 * 2**20  # bytes of one file of a TorchScript archive; Inception's have some kilobytes
# What a convolutional network consists of. Other operations of TorchScript write and read files.
OPERATIONS = frozenset({
    "_convolution", "adaptive_avg_pool2d", "add", "add_", "avg_pool2d", "batch_norm", "cat", "conv2d", "dropout",
    "flatten", "linear", "max_pool2d", "mean", "relu", "relu_",
})  # fmt: skip


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
