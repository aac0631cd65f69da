"""The translation benchmarks as a task for `benchmarks.runs.execute`: records become requests, images scores.

depth: RMSE. canny: MS-SSIM, SSIM and F1 of the edges. segmentation: counts of pixels, of which all images together make
a mean IoU. FID, which is of all images together too, is benchmarks/runs/fid.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from PIL import Image

from baselines.method import TranslateRequest
from benchmarks.datasets.shown import shown_translation
from benchmarks.datasets.translation import TranslationDataset, TranslationRow
from benchmarks.datasets.translation_protocols import TranslationProtocol
from benchmarks.runs.edit_task import by_image, to_tensor
from benchmarks.runs.execute import Scored, sample_seed
from benchmarks.runs.store import Facts
from metrics.functional.depth import DEPTH_COLUMNS, score_depth
from metrics.functional.edges import EDGE_COLUMNS, EDGES, score_edges
from metrics.functional.segmentation import class_counts
from metrics.networks.backbones import TranslationBackbones
from reports.sheets.pictures import Shown

COLUMNS: dict[str, tuple[str, ...]] = {"depth": DEPTH_COLUMNS, "canny": EDGE_COLUMNS, "segmentation": ()}
# What the protocols' option is called in metrics/.
DEPTH_NORMALISATIONS = {"min-max": "editar-released", "max": "controlnet++"}


class TranslateTask:
    """device: a torch device string, where the backbones are."""

    def __init__(
        self,
        dataset: TranslationDataset,
        protocol: TranslationProtocol,
        backbones: TranslationBackbones,
        seed: int,
        device: str,
    ) -> None:
        self.dataset, self.options, self.backbones = dataset, protocol, backbones
        self.seed, self.device = seed, device
        self.name = dataset.task
        self.protocol = protocol.name
        self.columns = COLUMNS[dataset.task]
        self.records = {
            sample_id: record for record in dataset.records for sample_id in protocol.sample_ids(record.sample_id)
        }

    @property
    def facts(self) -> Facts:
        """What samples.parquet says of each sample: source_id is equal where the real image is; draw numbers the
        images of one prompt, "0" where there is only one."""
        return {
            sample_id: {"source_id": record.image_sha256, "draw": str(number)}
            for record in self.dataset.records
            for number, sample_id in enumerate(self.options.sample_ids(record.sample_id))
        }

    def scoring(self) -> dict[str, Any]:
        """How the images are scored, for the manifest."""
        networks = {name: getattr(self.backbones, name) for name in ("features", "depth", "segmentation")}
        return {
            "options": asdict(self.options),
            "precision": "float32",
            "backbones": {
                name: {"name": network.name, "official": network.official, "digest": network.digest}
                for name, network in networks.items()
                if network is not None
            },
        }

    def request(self, sample_id: str) -> TranslateRequest:
        row = self._row(sample_id)
        return TranslateRequest(
            sample_id=sample_id,
            condition=self.options.condition(row),
            caption=row.record.caption,
            task=self.name,
            seed=sample_seed(self.seed, self.protocol, sample_id),
        )

    def shown(self, sample_id: str) -> Shown:
        return shown_translation(self.dataset, self.options, self.records[sample_id])

    @torch.inference_mode()
    def score(
        self, sample_ids: Sequence[str], generated: Mapping[str, Sequence[Image.Image]]
    ) -> dict[str, list[Scored]]:
        labels = torch.from_numpy(np.stack([self.options.label(self._row(sample_id)) for sample_id in sample_ids]))
        score = {"depth": self._depth, "canny": self._canny, "segmentation": self._segmentation}[self.name]
        return {name: score(to_tensor(images, self.device), labels, sample_ids) for name, images in generated.items()}

    def _row(self, sample_id: str) -> TranslationRow:
        return self.dataset.row(self.records[sample_id])

    def _depth(self, images: torch.Tensor, labels: torch.Tensor, sample_ids: Sequence[str]) -> list[Scored]:
        assert self.backbones.depth is not None
        normalisation = DEPTH_NORMALISATIONS[self.options.depth_normalisation]
        return by_image(score_depth(self.backbones.depth.depth(images), labels, normalisation))

    def _canny(self, images: torch.Tensor, labels: torch.Tensor, sample_ids: Sequence[str]) -> list[Scored]:
        edges = EDGES[self.options.canny](images)
        return by_image(score_edges(edges, (labels[:, None] / 255).to(edges)))

    def _segmentation(self, images: torch.Tensor, labels: torch.Tensor, sample_ids: Sequence[str]) -> list[Scored]:
        """No score of an image alone: a mean of IoUs per image is another number than the IoU of all pixels."""
        assert self.backbones.segmentation is not None
        predictions = self.backbones.segmentation.labels(images)
        counts = class_counts(predictions, labels, self.dataset.classes, sample_ids)
        return [Scored(scores={}, undefined={}, counts=present_classes(each)) for each in counts]


def present_classes(counts: torch.Tensor) -> dict[str, list[int]]:
    """Counts (3, C) as {class: [pixels in both maps, in the prediction, in the label]} of the classes in either map."""
    present = counts.any(0).nonzero()[:, 0].tolist()
    return {str(each): counts[:, each].tolist() for each in present}
