"""The C++ of this folder, compiled by this machine's compiler at the first need and kept in the user's cache folder.

On a CPU PyTorch's products of a few rows reach half to two thirds of the memory's speed, its attention of one or two
queries a quarter, and its 50 small operations a layer cost as much again. Compiling takes a second or two; where it
does not work there is a warning, and PyTorch's operations serve.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editar.config import MOST_WINDOW
from editar.io.atomic import replacing

FOLDER = Path(__file__).parent
# Numbers of a vector that the processor holds in one register; g++ makes code 16 times as slow of wider ones.
LANES = {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 4)
BLOCK = 32  # rows of a matrix; of 16, 32 and 64 the fastest
NUMBERS = {torch.float32: "float", torch.bfloat16: "bf16"}
FLAGS = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC"]


class Kernels:
    """A compiled file's functions as methods, for contiguous tensors on the CPU, whole numbers and float numbers.

    They run on as many threads as PyTorch's own operations; the results do not depend on that number.
    """

    def __init__(self, library: Path) -> None:
        self._functions = ctypes.CDLL(str(library))

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._functions, name)

        def call(*arguments: Tensor | int | float) -> None:
            function(*map(_argument, arguments), ctypes.c_long(torch.get_num_threads()))

        setattr(self, name, call)
        return call


def _argument(value: Tensor | int | float) -> object:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_long(value) if isinstance(value, int) else ctypes.c_float(value)


@cache
def compiled(source: str, dtype: torch.dtype, head_dim: int = 0) -> Kernels | None:
    """A C++ file for numbers of a dtype, float32 or bfloat16, and heads of a size; None, with a warning, where it can't
    be compiled."""
    try:
        return Kernels(_library(source, [f"-DNUMBER={NUMBERS[dtype]}", f"-DHEAD={head_dim}"]))
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        warnings.warn(
            f"decoding is slower than it could be: {source} could not be compiled ({reason.strip()[:500]}); it needs a "
            "C++ compiler with OpenMP, g++ for example, as c++ on the PATH or in the environment's CXX",
            stacklevel=2,
        )
        return None


def _library(source: str, constants: list[str]) -> Path:
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(compiler[0]) is None:
        raise FileNotFoundError(f"there is no {compiler[0]}")
    command = [*compiler, *FLAGS, f"-DLANES={LANES}", f"-DBLOCK={BLOCK}", f"-DMOST_WINDOW={MOST_WINDOW}", *constants]
    # What the compiler predefines tells its version and this processor's instructions: a home may be shared by several.
    macros = _output([*command, "-dM", "-E", "-x", "c++", os.devnull])
    text = "".join((FOLDER / name).read_text() for name in ("vectors.h", source))
    key = hashlib.sha256("\0".join([*command, macros, text]).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "editar"
    library = folder / f"{Path(source).stem}-{key}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(library) as file:  # another process may be compiling the same one
            _output([*command, str(FOLDER / source), "-o", file.name])
    return library


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
