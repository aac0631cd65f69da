"""The canny condition of an image: the edges that the metric takes, as a map."""

import numpy as np
import torch

from metrics.functional.edges import EDGES


def canny_map(image: np.ndarray, implementation: str) -> np.ndarray:
    """Edges of an RGB image uint8 (height, width, 3) by one of EDGES: uint8 (height, width), 0 or 255."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    return (EDGES[implementation](pixels)[0, 0] * 255).byte().numpy()
