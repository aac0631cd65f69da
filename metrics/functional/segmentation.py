"""Mean intersection over union of predicted and true labels, as mergeable counts.

IoU of a class = pixels that have it in both maps / pixels that have it in either; the mean is over the classes that
occur in either map of the whole data set (mmsegmentation's IoUMetric). Pixels labelled 255 count nowhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = 255


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """mean_iou and iou in 0..1, None where no class or not this class occurs; present: classes in the mean."""

    mean_iou: float | None
    iou: list[float | None]
    present: int
    images: int


class SegmentationSums:
    """Counts (3, C) int64 over any number of images: pixels of each class in both maps, in predictions, in labels.

    Integers: merging shards in any order gives exactly what one pass gives.
    """

    def __init__(self, classes: int) -> None:
        self.counts = torch.zeros(3, classes, dtype=torch.int64)
        self.images = 0

    def update(self, predictions: Tensor, labels: Tensor, names: Sequence[str] | None = None) -> None:
        """Add a batch: predictions and labels (B, H, W), see `class_counts`."""
        self.add(class_counts(predictions, labels, self.counts.shape[1], names))

    def add(self, counts: Tensor) -> None:
        """Add images by their `class_counts` (B, 3, C)."""
        self.counts += counts.sum(0)
        self.images += len(counts)

    def merge(self, other: "SegmentationSums") -> None:
        """Add another shard's images."""
        if other.counts.shape != self.counts.shape:
            raise ValueError(f"sums over {other.counts.shape[1]} and {self.counts.shape[1]} classes don't merge")
        self.counts += other.counts
        self.images += other.images

    def compute(self) -> SegmentationScores:
        both, predicted, labelled = self.counts
        union = predicted + labelled - both
        iou = both.double() / union
        present = union > 0
        return SegmentationScores(
            mean_iou=iou[present].mean().item() if present.any() else None,
            iou=[value if occurs else None for value, occurs in zip(iou.tolist(), present.tolist(), strict=True)],
            present=int(present.sum()),
            images=self.images,
        )

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"images": self.images, "counts": self.counts.tolist()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, object]) -> "SegmentationSums":
        counts = torch.tensor(stored["counts"], dtype=torch.int64)
        sums = cls(counts.shape[1])
        sums.counts, sums.images = counts, int(str(stored["images"]))
        return sums


def class_counts(predictions: Tensor, labels: Tensor, classes: int, names: Sequence[str] | None = None) -> Tensor:
    """Pixels of each class in both maps, in predictions, in labels: (B, 3, C) int64 on the CPU.

    predictions (B, H, W): integers in 0..C-1; labels (B, H, W): the same or 255, where the pixel is left out of all
    three counts. names: of the images, for messages. Raises ValueError naming image and value for any other integer.
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
