"""Photographs that scikit-image ships, for tests of what is computed from pictures; noise has no edges or areas."""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

NAMES = ("astronaut", "chelsea", "coffee", "rocket")


def photograph(number: int, width: int, height: int) -> Image.Image:
    """The middle of one of NAMES in turn, RGB, reduced to this size; every second round mirrored."""
    import skimage.data

    image = Image.fromarray(getattr(skimage.data, NAMES[number % len(NAMES)])())
    fitted = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return ImageOps.mirror(fitted) if number // len(NAMES) % 2 else fitted


def photographs(batch: int, height: int, width: int, first: int = 0) -> Tensor:
    """Photographs `first`, `first` + 1 ... as uint8 (B, 3, H, W)."""
    images = [np.asarray(photograph(first + number, width, height)) for number in range(batch)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
