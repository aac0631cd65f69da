"""What some tests need of the machine."""

import os

import pytest
import torch

from editar.decoding.cpu.kernels import compiled

# Where CI is true they run, and fail without it.
COMPILER = pytest.mark.skipif(
    compiled("layer.cpp", torch.bfloat16) is None and os.environ.get("CI") != "true", reason="needs a C++ compiler"
)
