"""Tensors on disk by the fingerprint of all that they were computed from, for methods that share an inversion."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

_NAME = "tensor"


def fingerprint(facts: Mapping[str, Any], image: Image.Image) -> str:
    """SHA-256 over facts, which must be JSON, and pixels."""
    digest = hashlib.sha256(json.dumps([facts, image.mode, image.size], sort_keys=True).encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


class TensorCache:
    """One safetensors file for each fingerprint; without a folder nothing is kept. It may be deleted at any time."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, key: str) -> Tensor | None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        if self.folder is None:
            return None
        try:
            return load(self._path(key).read_bytes())[_NAME]
        except FileNotFoundError:
            return None
        except SafetensorError as error:
            raise ValueError(f"{self._path(key)} is damaged ({error}); delete it") from error

    def put(self, key: str, tensor: Tensor) -> None:
        from editar.io.tensors import write_safetensors

        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(self._path(key), {_NAME: tensor.contiguous().cpu()})

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"
