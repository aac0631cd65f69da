"""PIE-Bench as a task for `benchmarks.runs.execute`: records become requests, images the seven columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from baselines.method import EditRequest
from benchmarks.datasets.piebench import PieBench, PieBenchRecord
from benchmarks.datasets.shown import shown_edit
from benchmarks.runs.execute import Scored, sample_seed
from benchmarks.runs.store import Facts
from metrics.networks.backbones import Backbones
from metrics.protocols.pie_bench import PIE_BENCH_COLUMNS, PieBenchScorer
from metrics.protocols.scores import MethodScores
from reports.sheets.pictures import Shown

PROTOCOL = "pie-bench/v1"
COLUMNS = PIE_BENCH_COLUMNS


class EditTask:
    """device: a torch device string, where the backbones are."""

    protocol = PROTOCOL
    columns: tuple[str, ...] = COLUMNS

    def __init__(self, dataset: PieBench, backbones: Backbones, precision: str, seed: int, device: str) -> None:
        self.records: dict[str, PieBenchRecord] = {record.sample_id: record for record in dataset.records}
        self.seed = seed
        self.device = device
        self.precision = precision
        self.backbones = backbones
        self.scorer = PieBenchScorer(backbones, precision=precision)

    @property
    def facts(self) -> Facts:
        """What samples.parquet says of each sample: source_id groups edits of the same image."""
        return {
            name: {
                "source_id": record.image_sha256,
                "edit_type": record.edit_type,
                "edit_type_name": record.edit_type_name,
            }
            for name, record in self.records.items()
        }

    def scoring(self) -> dict[str, Any]:
        """How the images are scored, for the manifest."""
        networks = {name: getattr(self.backbones, name) for name in ("structure", "perceptual", "clip")}
        return {
            "precision": self.precision,
            "backbones": {
                name: {"name": network.name, "official": network.official, "digest": network.digest}
                for name, network in networks.items()
            },
        }

    def request(self, sample_id: str) -> EditRequest:
        record = self.records[sample_id]
        return EditRequest(
            sample_id=sample_id,
            image=record.image(),
            instruction=record.instruction,
            source_prompt=record.source_prompt,
            target_prompt=record.target_prompt,
            blend_words=record.blend_words,
            seed=sample_seed(self.seed, PROTOCOL, sample_id),
        )

    def shown(self, sample_id: str) -> Shown:
        return shown_edit(self.records[sample_id])

    def score(self, sample_ids: Sequence[str], edited: Mapping[str, Sequence[Image.Image]]) -> dict[str, list[Scored]]:
        records = [self.records[sample_id] for sample_id in sample_ids]
        results = self.scorer.score(
            to_tensor([record.image() for record in records], self.device),
            torch.from_numpy(np.stack([record.mask() for record in records])[:, None]).to(self.device),
            [record.target_prompt for record in records],
            {name: to_tensor(images, self.device) for name, images in edited.items()},
        )
        return {name: by_image(result) for name, result in results.items()}


def to_tensor(images: Sequence[Image.Image], device: str) -> torch.Tensor:
    """RGB images of one size as float (B, 3, H, W) in [0, 1], multiples of 1/255."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return pixels.to(device).permute(0, 3, 1, 2).float().div(255)


def by_image(result: MethodScores) -> list[Scored]:
    return [
        Scored(scores={name: values[position] for name, values in result.columns.items()}, undefined=reasons)
        for position, reasons in enumerate(result.undefined)
    ]
