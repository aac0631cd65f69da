"""The Inception network of FID, from its official TorchScript file, fed as clean-fid feeds it (Parmar et al. 2022)."""

import ast
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metrics.networks.official import Found, OfficialNetwork

SIDE = 299
MAX_CODE = 16 * 2**20  # bytes that compressed code may add to a TorchScript file; Inception's has some kilobytes
# What a convolutional network consists of. Other operations of TorchScript write and read files.
OPERATIONS = frozenset({
    "_convolution", "adaptive_avg_pool2d", "add", "add_", "avg_pool2d", "batch_norm", "cat", "conv2d", "dropout",
    "flatten", "linear", "max_pool2d", "mean", "relu", "relu_",
})  # fmt: skip


class OfficialInception(OfficialNetwork):
    """2048 features an image, equal to clean-fid's in its mode "clean".

    A TorchScript file holds a program, which runs without Python but runs: any but the published file is refused where
    its program is more than a network.
    """

    def __init__(self, weights: Found, *, device: str = "cpu") -> None:
        from cleanfid.resize import build_resizer

        super().__init__(weights, "inception-2015-12-05", device)
        self.resize = build_resizer("clean")
        self.batch = 8 if device == "cpu" else 64
        try:
            # The file's own entry resizes in another way; its part `layers` expects images of 299 x 299 in [-1, 1).
            content = weights.path.read_bytes()  # what is checked is what is loaded
            if not weights.official:
                check_torchscript(content)
            self.layers = torch.jit.load(io.BytesIO(content), map_location=device).eval().layers
            self.dimension = self.features(torch.zeros(1, 3, SIDE, SIDE)).shape[1]
        except (AttributeError, RuntimeError, ValueError, SyntaxError) as error:
            raise ValueError(f"{weights.path} is not Inception's TorchScript file: {error}") from None

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Any image to float32 (3, 299, 299) in [0, 255] by clean-fid's own resizing, which defines the score: PIL's
        bicubic on each channel in float, clipped."""
        return np.ascontiguousarray(self.resize(np.asarray(image.convert("RGB"))).transpose(2, 0, 1))

    @torch.inference_mode()
    def features(self, prepared: Tensor) -> Tensor:
        """What `prepare` gave, (B, 3, 299, 299), to (B, 2048)."""
        return self.layers((prepared.to(self.device) - 128) / 128).flatten(1)


def check_torchscript(content: bytes) -> None:
    """Raises ValueError where the program in a TorchScript file is more than a network.

    It runs without Python, but it runs, from the moment the file is loaded, and could write files. The file is read by
    PyTorch's own reader, which loads it too: Python's `zipfile` can be shown another program.
    """
    if not content.startswith(b"PK\x03\x04") or content[4:8] == b"PTMF":  # PyTorch's other format of programs
        raise ValueError("it is no archive")
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    sizes = {name: reader.get_record_size(name) for name in reader.get_all_records()}
    if sum(sizes.values()) > len(content) + MAX_CODE:
        raise ValueError(f"it unfolds to {sum(sizes.values())} bytes and has {len(content)}")
    for name in sizes:
        if name.lower().endswith(".py"):  # the reader finds names in any case
            _check_code(reader.get_record(name).decode("utf-8"), name)


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
