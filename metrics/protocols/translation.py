"""How well images made from condition maps keep to their maps, for each of the three tasks.

depth: RMSE of the depth that a network sees in the image. canny: MS-SSIM, SSIM and F1 of the image's edges.
segmentation: counts of pixels, from which all images together get a mean IoU; the mean of IoUs per image is another
number. FID, which belongs to all images together too, is in metrics/protocols/fid.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from metrics.functional.depth import DEPTH_COLUMNS, score_depth
from metrics.functional.edges import EDGE_COLUMNS, EDGES, score_edges
from metrics.functional.segmentation import class_counts
from metrics.networks.backbones import TranslationBackbones
from metrics.scores import Scores

TRANSLATION_COLUMNS: dict[str, tuple[str, ...]] = {"depth": DEPTH_COLUMNS, "canny": EDGE_COLUMNS, "segmentation": ()}
Counts = dict[str, list[int]]
"""By class: its pixels in both maps, in the prediction, in the label; classes in neither are left out."""


class TranslationScorer:
    """Scores batches of images of one task: "depth", "canny" or "segmentation".

    canny: one of EDGES. depth_normalisation: one of NORMALISATIONS. classes: of the labels of segmentation.
    Raises ValueError for another task and for backbones that lack the task's network.
    """

    def __init__(
        self,
        task: str,
        backbones: TranslationBackbones,
        *,
        canny: str = "kornia",
        depth_normalisation: str = "min-max",
        classes: int = 171,
    ) -> None:
        if task not in TRANSLATION_COLUMNS:
            raise ValueError(f"task is {task!r}; it must be one of {', '.join(TRANSLATION_COLUMNS)}")
        if task != "canny" and getattr(backbones, task) is None:
            raise ValueError(f"{task} can't be scored: these backbones have no network for it")
        self.task, self.backbones, self.classes = task, backbones, classes
        self.edges = EDGES[canny]
        self.normalisation = depth_normalisation

    @torch.inference_mode()
    def score(
        self, images: Tensor, labels: Tensor, names: Sequence[str] | None = None
    ) -> tuple[list[Scores], list[Counts | None]]:
        """The task's columns for each image, or the reason why it has none; and for segmentation, which has no columns,
        each image's counts.

        images (B, 3, H, W) in [0, 1], 8-bit images divided by 255. labels (B, H, W) uint8: depth of any scale, edges of
        0 and 255, or train ids with 255 where nothing counts. names: of the images, for messages.
        Raises ValueError for shapes and values that don't fit.
        """
        none: list[Counts | None] = [None] * len(images)
        if self.task == "depth":
            assert self.backbones.depth is not None
            return score_depth(self.backbones.depth.depth(images), labels, self.normalisation), none
        if self.task == "canny":
            edges = self.edges(images)
            return score_edges(edges, (labels[:, None] / 255).to(edges)), none
        assert self.backbones.segmentation is not None
        counts = class_counts(self.backbones.segmentation.labels(images), labels, self.classes, names)
        return [{} for _ in images], [_present(each) for each in counts]


def _present(counts: Tensor) -> Counts:
    """Counts (3, C) of the classes that occur in either map."""
    present = counts.any(0).nonzero()[:, 0].tolist()
    return {str(each): counts[:, each].tolist() for each in present}
