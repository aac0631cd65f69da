"""Edge maps and their scores against the libraries that define them, and what is undefined."""

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation
from skimage.feature import canny
from torch import Tensor
from torchmetrics.classification import BinaryF1Score
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure, StructuralSimilarityIndexMeasure

from metrics.functional.edges import EDGE_COLUMNS, EDGES, MS_SSIM_SIDE, NO_EDGES, TOO_SMALL, score_edges
from tests.metrics.reading import reasons, values
from tests.photographs import photographs

SIDE = 176


def scenes(batch: int, first: int = 0) -> Tensor:
    return photographs(batch, SIDE, SIDE, first) / 255


@pytest.mark.parametrize("variant", EDGES)
def test_edges_are_zero_or_one_and_each_image_has_its_own(variant: str) -> None:
    images = scenes(3)
    edges = EDGES[variant](images)
    assert edges.shape == (3, 1, SIDE, SIDE) and edges.dtype == torch.float32
    assert set(edges.unique().tolist()) == {0, 1}
    assert 0.002 < edges.mean() < 0.3
    for i in range(3):
        assert torch.equal(EDGES[variant](images[i : i + 1])[0], edges[i])
    assert EDGES[variant](torch.full((1, 3, SIDE, SIDE), 0.5)).sum() == 0


def test_the_cv2_variant_is_opencvs_on_bgr_pixels() -> None:
    images = scenes(2, 1)
    for image, edges in zip(images, EDGES["cv2"](images), strict=True):
        pixels = (image * 255).round().byte().numpy()
        bgr = np.ascontiguousarray(np.stack([pixels[2], pixels[1], pixels[0]], axis=-1))
        assert np.array_equal(edges[0].numpy() * 255, cv2.Canny(bgr, 100, 200))


def test_the_kornia_variant_has_the_thresholds_of_the_protocol() -> None:
    from kornia.filters import Canny

    images = scenes(2, 1)
    assert torch.equal(EDGES["kornia"](images), Canny(low_threshold=0.1, high_threshold=0.2)(images)[1])


def test_the_kornia_variant_has_the_edges_of_scikit_image() -> None:
    """Of the grey image, smoothed by a Gaussian of 1 pixel, with the same thresholds. Not the same pixels: kornia cuts
    the Gaussian to 5 taps and compares gradients with the nearest neighbours, where scikit-image interpolates between
    them. Within a pixel of the other's edges lie 97.7% to 99.8% of each one's.
    """
    images = photographs(4, 300, 300) / 255
    for image, edges in zip(images, EDGES["kornia"](images), strict=True):
        red, green, blue = image.double().numpy()
        theirs = canny(
            0.299 * red + 0.587 * green + 0.114 * blue, low_threshold=0.1, high_threshold=0.2, mode="reflect"
        )
        ours = edges[0].numpy() == 1
        for one, other in ((ours, theirs), (theirs, ours)):
            assert (one & binary_dilation(other, np.ones((3, 3)))).sum() > 0.97 * one.sum() > 1000


@pytest.mark.parametrize("variant", EDGES)
def test_scores_equal_torchmetrics_image_by_image(variant: str) -> None:
    references = EDGES[variant](scenes(3))
    edges = EDGES[variant](scenes(3, 1))
    edges[1] = torch.where(torch.arange(SIDE) < 90, references[1], edges[1])
    edges[2] = references[2]
    scores = score_edges(edges, references)
    oracles = {
        "ms_ssim": MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0),
        "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
        "f1": BinaryF1Score(),
    }
    assert tuple(scores[0]) == EDGE_COLUMNS and reasons(scores) == [{}, {}, {}]
    for i in range(3):
        for name, oracle in oracles.items():
            oracle.reset()
            arguments = (edges[i : i + 1], references[i : i + 1])
            expected = oracle(*(x.flatten() for x in arguments) if name == "f1" else arguments).item()
            assert values(scores, name)[i] == pytest.approx(expected, rel=1e-5, abs=1e-6), (name, i)
    assert [values(scores, name)[2] for name in EDGE_COLUMNS] == pytest.approx([1, 1, 1])


def test_maps_without_any_edge_have_no_f1() -> None:
    empty = torch.zeros(3, 1, SIDE, SIDE)
    references = empty.clone()
    references[1:, :, 40] = 1
    edges = empty.clone()
    edges[2, :, 41] = 1
    scores = score_edges(edges, references)
    assert values(scores, "f1") == [None, 0.0, 0.0]
    assert reasons(scores) == [{"f1": NO_EDGES}, {}, {}]
    assert values(scores, "ssim")[0] == values(scores, "ms_ssim")[0] == 1


def test_small_images_have_no_ms_ssim() -> None:
    edges = torch.zeros(1, 1, MS_SSIM_SIDE, MS_SSIM_SIDE)
    edges[..., 7] = 1
    assert values(score_edges(edges, edges), "ms_ssim") == [pytest.approx(1)]
    scores = score_edges(edges[..., 1:], edges[..., 1:])
    assert values(scores, "ms_ssim") == [None]
    assert reasons(scores) == [{"ms_ssim": TOO_SMALL}]
    assert values(scores, "f1") == [1.0]


def test_what_is_no_pair_of_edge_maps_is_refused() -> None:
    edges = torch.zeros(1, 1, 32, 32)
    with pytest.raises(ValueError):
        score_edges(edges + 255, edges)
    with pytest.raises(ValueError):
        score_edges(edges[..., 1:], edges)
    with pytest.raises(ValueError, match=r"\(1, 3, 32, 32\)"):
        score_edges(edges.expand(1, 3, 32, 32), edges.expand(1, 3, 32, 32))
