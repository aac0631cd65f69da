"""Small translation requests, and what tests compare of the answers."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from baselines.method import TranslateRequest

SIDE = 64
CAPTIONS = ("a red disc", "two cats on a sofa", "the sea at night")


def condition(rng: np.random.Generator) -> Image.Image:
    """Sixteen patches of colour."""
    patches = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return patches.resize((SIDE, SIDE), Image.Resampling.NEAREST)


def requests(count: int, task: str) -> list[TranslateRequest]:
    rng = np.random.default_rng(0)
    return [
        TranslateRequest(
            sample_id=str(number),
            condition=condition(rng),
            caption=CAPTIONS[number],
            task=task,
            seed=number,
        )
        for number in range(count)
    ]


def pixels(images: Sequence[Image.Image]) -> np.ndarray:
    """Levels (B, SIDE, SIDE, 3) as float64."""
    assert all(image.size == (SIDE, SIDE) and image.mode == "RGB" for image in images)
    return np.stack([np.asarray(image, dtype=np.float64) for image in images])


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in the unit of the largest value."""
    return float((found.double() - expected).abs().max() / expected.abs().max())
