"""What tests of translating methods compare."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from baselines.method import NoAnswer
from tests.baselines.tiny_diffusion import SIDE


def pixels(images: Sequence[Image.Image | NoAnswer]) -> np.ndarray:
    """Levels (B, SIDE, SIDE, 3) as float64."""
    for image in images:
        assert isinstance(image, Image.Image) and image.size == (SIDE, SIDE) and image.mode == "RGB"
    return np.stack([np.asarray(image, dtype=np.float64) for image in images])


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in the unit of the largest value."""
    return float((found.double() - expected).abs().max() / expected.abs().max())
