"""mIoU against torchmetrics and a slow version; labels that are no train ids."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index

from metrics.functional.segmentation import IGNORED, check_labels, class_counts
from reports.tables.mean_iou import mean_iou_interval


def maps(seed: int, batch: int = 6, classes: int = 9, ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (batch, 12, 17), generator=generator)
    noise = torch.randint(0, classes, labels.shape, generator=generator)
    predictions = torch.where(torch.rand(labels.shape, generator=generator) < 0.6, labels, noise)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = IGNORED
    return predictions, labels


def mean_iou(counts: Tensor) -> float | None:
    """As the tables take it, of all images together."""
    each = np.arange(len(counts))
    return mean_iou_interval(counts.numpy(), draws=0 * each, clusters=each).mean


def slow_iou(predictions: np.ndarray, labels: np.ndarray, c: int) -> float:
    pairs = [(p, t) for p, t in zip(predictions.ravel(), labels.ravel(), strict=True) if t != 255]
    return sum(p == t == c for p, t in pairs) / sum(p == c or t == c for p, t in pairs)


def test_equals_torchmetrics_and_the_slow_version() -> None:
    predictions, labels = maps(0)
    value = mean_iou(class_counts(predictions, labels, 9))
    expected = multiclass_jaccard_index(predictions, labels, num_classes=9, ignore_index=IGNORED)
    assert value == pytest.approx(expected.item(), rel=1e-6)
    slow = [slow_iou(predictions.numpy(), labels.numpy(), c) for c in range(9)]
    assert value == pytest.approx(np.mean(slow), rel=1e-12)


def test_classes_that_occur_nowhere_are_not_in_the_mean_but_wrongly_predicted_ones_are() -> None:
    labels = torch.tensor([[[0, 0, 1, 255]]])
    predictions = torch.tensor([[[0, 2, 1, 3]]])
    counts = class_counts(predictions, labels, 5)
    assert counts.tolist() == [[[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [2, 1, 0, 0, 0]]]
    assert mean_iou(counts) == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_a_map_that_is_ignored_throughout_has_no_mean() -> None:
    predictions, labels = maps(0, ignored=1.1)
    counts = class_counts(predictions, labels, 9)
    assert not counts.any() and mean_iou(counts) is None


def test_counts_stay_exact_beyond_single_precision() -> None:
    counts = torch.tensor([[[2**40, 1], [2**40, 1], [2**40, 2]], [[1, 0], [1, 0], [1, 0]]])
    assert counts.sum(0)[0, 0] == 2**40 + 1
    assert mean_iou(counts) == (1 + 0.5) / 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_counts_are_per_image(dtype: torch.dtype) -> None:
    predictions, labels = maps(1)
    counts = class_counts(predictions.to(dtype), labels.to(dtype), 9)
    assert counts.shape == (6, 3, 9)
    for i in range(6):
        assert torch.equal(counts[i : i + 1], class_counts(predictions[i : i + 1], labels[i : i + 1], 9))


def test_labels_out_of_range_are_named() -> None:
    predictions, labels = maps(0)
    bad = labels.clone()
    bad[4, 0, :3] = 181
    bad[4, 1, 0] = -1
    with pytest.raises(ValueError, match=r"^b4: label -1 .*4 pixels"):
        class_counts(predictions, bad, 9, names=[f"b{i}" for i in range(6)])
    with pytest.raises(ValueError, match="image 4"):
        check_labels(bad, 9)
    check_labels(labels, 9)


def test_predictions_cannot_be_ignored() -> None:
    predictions, labels = maps(0)
    predictions[2, 3, 3] = IGNORED
    with pytest.raises(ValueError, match=r"image 2 .*255 .*0..8"):
        class_counts(predictions, labels, 9)


def test_shapes_types_and_numbers_of_classes_must_fit() -> None:
    predictions, labels = maps(0)
    with pytest.raises(ValueError):
        class_counts(predictions, labels[1:], 9)
    with pytest.raises(ValueError):
        check_labels(labels.float(), 9)
