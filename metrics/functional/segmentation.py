"""Counts of pixels, from which the images of a whole data set together get a mean intersection over union.

IoU of a class = pixels that have it in both maps / pixels that have it in either; the mean is over the classes that
occur in either map of the whole data set (mmsegmentation's IoUMetric). Pixels labelled 255 count nowhere. Integers: the
sums over images are exact in any order. reports/tables/statistics.py makes the mean of them, and its interval.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

IGNORED = 255


def class_counts(predictions: Tensor, labels: Tensor, classes: int, names: Sequence[str] | None = None) -> Tensor:
    """Pixels of each class in both maps, in predictions, in labels: (B, 3, C) int64 on the CPU.

    predictions (B, H, W): integers in 0..C-1; labels (B, H, W): the same or 255, where the pixel is left out of all
    three counts. names: of the images, for messages. Raises ValueError naming image and value for any other integer.

    >>> predictions, labels = torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 255]]])
    >>> class_counts(predictions, labels, classes=2)  # the last pixel counts nowhere
    tensor([[[1, 0],
             [1, 1],
             [2, 0]]])
    """
    if predictions.shape != labels.shape or labels.ndim != 3:
        raise ValueError(
            f"predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)} must be one (B, H, W)"
        )
    predictions, labels = predictions.cpu().long(), labels.cpu().long()
    check_labels(predictions, classes, names, "prediction", ignored=None)
    check_labels(labels, classes, names)
    counts = torch.zeros(len(labels), 3, classes, dtype=torch.int64)
    for count, prediction, label in zip(counts, predictions, labels, strict=True):
        kept = label != IGNORED
        prediction, label = prediction[kept], label[kept]
        for row, values in zip(count, (label[prediction == label], prediction, label), strict=True):
            row.copy_(values.bincount(minlength=classes))
    return counts


def check_labels(
    labels: Tensor,
    classes: int,
    names: Sequence[str] | None = None,
    what: str = "label",
    ignored: int | None = IGNORED,
) -> None:
    """Raise ValueError for the first image of (B, H, W) with a value that is neither a class nor `ignored`.

    Needs no network, so a data set can be checked before one is loaded.

    >>> check_labels(torch.tensor([[[0, 9]]]), classes=9, names=["a.png"])
    Traceback (most recent call last):
    ValueError: a.png: label 9 ...
    """
    if labels.is_floating_point():
        raise ValueError(f"{what}s are {labels.dtype}, must be integers")
    wrong = (labels < 0) | (labels >= classes)
    if ignored is not None:
        wrong &= labels != ignored
    for i in wrong.flatten(1).any(1).nonzero()[:, 0].tolist():
        values = labels[i][wrong[i]].unique().tolist()
        name = names[i] if names is not None else f"image {i} of the batch"
        also = "" if ignored is None else f" or {ignored} (ignored)"
        hint = ". Labels are train ids: not colours of a palette, not COCO's own ids from 1" if what == "label" else ""
        raise ValueError(
            f"{name}: {what} {values[0]}{f' and {len(values) - 1} more' if values[1:] else ''} must be in "
            f"0..{classes - 1}{also}; {int(wrong[i].sum())} pixels are not{hint}"
        )
