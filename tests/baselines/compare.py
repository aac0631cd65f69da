"""What tests of translating methods compare."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from tests.baselines.tiny_diffusion import SIDE


def pixels(images: Sequence[Image.Image]) -> np.ndarray:
    """Levels (B, SIDE, SIDE, 3) as float64."""
    assert all(image.size == (SIDE, SIDE) and image.mode == "RGB" for image in images)
    return np.stack([np.asarray(image, dtype=np.float64) for image in images])


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in the unit of the largest value."""
    return float((found.double() - expected).abs().max() / expected.abs().max())
