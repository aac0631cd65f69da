"""The scorer of the translation tasks: which network and option each task is scored with."""

import pytest
import torch
from torch import Tensor

from metrics.functional.depth import FLAT_LABEL
from metrics.functional.edges import EDGES
from metrics.networks.backbones import TranslationBackbones
from metrics.protocols.translation import TRANSLATION_COLUMNS, TranslationScorer
from tests.photographs import photographs

SIDE = 16


class Network:
    """Depth is the first channel, the label which channel is largest."""

    name, official, digest, classes = "channels", False, "0", 3
    dimension, batch, device = 3, 1, "cpu"

    def depth(self, images: Tensor) -> Tensor:
        return images[:, 0]

    def labels(self, images: Tensor) -> Tensor:
        return images.argmax(1)

    def prepare(self, image):
        raise NotImplementedError

    def features(self, prepared: Tensor) -> Tensor:
        raise NotImplementedError


def scorer(task: str, **options) -> TranslationScorer:
    return TranslationScorer(
        task, TranslationBackbones(features=Network(), depth=Network(), segmentation=Network()), classes=3, **options
    )


def pixels(batch: int) -> Tensor:
    return photographs(batch, SIDE, SIDE) / 255


def test_each_task_has_its_columns():
    images, labels = pixels(2), torch.arange(SIDE).expand(2, SIDE, SIDE).byte()
    for task, columns in TRANSLATION_COLUMNS.items():
        scores, counts = scorer(task).score(images, (labels >= 8) * 255 if task == "canny" else labels.clamp(max=2))
        assert [tuple(each) for each in scores] == [columns] * 2
        assert (counts == [None, None]) == (task != "segmentation")


def test_depth_goes_by_the_normalisation():
    """A depth that starts at 0.5: its range is the label's, its maximum isn't."""
    ramp = torch.linspace(0, 1, SIDE).expand(1, 3, SIDE, SIDE)
    label = (255 * ramp[:, 0]).byte()
    (by_range,), _ = scorer("depth").score((1 + ramp) / 2, label)
    (by_maximum,), _ = scorer("depth", depth_normalisation="max").score((1 + ramp) / 2, label)
    assert float(by_range["depth_rmse"]) < 1 < 50 < float(by_maximum["depth_rmse"])
    (flat,), _ = scorer("depth").score(ramp, torch.zeros(1, SIDE, SIDE))
    assert flat["depth_rmse"] == FLAT_LABEL


def test_the_edges_are_those_of_the_named_implementation():
    images = pixels(2)
    for name, edges in EDGES.items():
        scores, _ = scorer("canny", canny=name).score(images, edges(images)[:, 0] * 255)
        assert [each["f1"] for each in scores] == [1, 1]


def test_segmentation_counts_the_pixels_of_the_classes_that_occur():
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0, 0] = images[0, 2, 1] = 1  # predictions: 0 0 / 2 2
    _, (counts,) = scorer("segmentation").score(images, torch.tensor([[[0, 2], [255, 2]]]).byte())
    assert counts == {"0": [1, 2, 1], "2": [1, 1, 2]}
    with pytest.raises(ValueError, match="cat: label 3"):
        scorer("segmentation").score(images, torch.full((1, 2, 2), 3), ["cat"])


def test_what_cannot_be_scored_is_refused_at_once():
    with pytest.raises(ValueError):
        scorer("pose")
    with pytest.raises(ValueError):
        TranslationScorer("depth", TranslationBackbones(features=Network()))
