"""The Inception network of FID, from its official TorchScript file, fed as clean-fid feeds it (Parmar et al. 2022)."""

import zipfile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from editar.io.torchscript import check_torchscript
from metrics.networks.official import Found

SIDE = 299


class OfficialInception:
    """2048 features an image, equal to clean-fid's in its mode "clean".

    A TorchScript file holds a program, which runs without Python but runs: any but the published file is refused where
    its program is more than a network.
    """

    def __init__(self, weights: Found, *, device: str = "cpu") -> None:
        from cleanfid.resize import build_resizer

        self.name = weights.label("inception-2015-12-05")
        self.official = weights.official
        self.digest = weights.digest
        self.device = device
        self.resize = build_resizer("clean")
        self.batch = 8 if device == "cpu" else 64
        try:
            # The file's own entry resizes in another way; its part `layers` expects images of 299 x 299 in [-1, 1).
            if not weights.official:
                check_torchscript(weights.path)
            self.layers = torch.jit.load(weights.path, map_location=device).eval().layers
            self.dimension = self.features(torch.zeros(1, 3, SIDE, SIDE)).shape[1]
        except (AttributeError, RuntimeError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
            raise ValueError(f"{weights.path} is not Inception's TorchScript file: {error}") from None

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Any image to float32 (3, 299, 299) in [0, 255] by clean-fid's own resizing, which defines the score: PIL's
        bicubic on each channel in float, clipped."""
        return np.ascontiguousarray(self.resize(np.asarray(image.convert("RGB"))).transpose(2, 0, 1))

    @torch.inference_mode()
    def features(self, prepared: Tensor) -> Tensor:
        """What `prepare` gave, (B, 3, 299, 299), to (B, 2048)."""
        return self.layers((prepared.to(self.device) - 128) / 128).flatten(1)
