"""Canny edges of an image by the two implementations that published rows were made with."""

import numpy as np
from PIL import Image

# kornia's 0.1/0.2 on [0, 1] are in the code of EditAR and of ControlNet++; cv2's 100/200 are in both papers.
KORNIA_THRESHOLDS = (0.1, 0.2)
CV2_THRESHOLDS = (100, 200)


def kornia_canny(image: Image.Image) -> np.ndarray:
    """Edges of an RGB image as uint8 (height, width), 0 or 255, after its hysteresis."""
    import torch
    from kornia.filters import canny

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    edges = canny(pixels, *KORNIA_THRESHOLDS)[1][0, 0]
    return (edges.numpy() * 255).astype(np.uint8)


def cv2_canny(image: Image.Image) -> np.ndarray:
    """Edges of an RGB image as uint8 (height, width), 0 or 255. In colour, as ControlNet++ gives it to cv2."""
    import cv2

    return np.asarray(cv2.Canny(np.asarray(image)[:, :, ::-1].copy(), *CV2_THRESHOLDS), np.uint8)


CANNY = {"kornia": kornia_canny, "cv2": cv2_canny}
