"""Edits of the miniature's world: PIE-Bench's columns, and what the world itself knows of the true result."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.datasets.piebench import PieBench
from benchmarks.miniature.evaluate.edit_scores import judge
from benchmarks.miniature.evaluate.perception import Perception
from benchmarks.miniature.world.edits import Edit
from benchmarks.miniature.world.render import render, to_tensor
from benchmarks.runs.edit_benchmark import COLUMNS, EditBenchmark
from benchmarks.runs.execute import Images
from benchmarks.runs.schema import Sample
from metrics.networks.backbones import Backbones

ERROR, ASKED, FOLLOWED = "error_in_mask", "asked", "followed"


class TruthBenchmark(EditBenchmark):
    """error_in_mask: mean absolute difference from the true result inside the mask, in [0, 1]. asked, followed: 1 where
    the attribute heads find the asked-for attribute, and where they find all others as they were besides; else 0."""

    protocol = "miniature-edits/v1"
    columns = (*COLUMNS, ERROR, ASKED, FOLLOWED)

    def __init__(
        self, dataset: PieBench, edits: Mapping[str, Edit], network: Perception, backbones: Backbones, seed: int
    ) -> None:
        """edits: of the data set's records, by sample id. network: has the heads; on the CPU, as all is here."""
        super().__init__(dataset, backbones, "float32", seed, "cpu")
        self.edits, self.network = edits, network

    def score(self, samples: Mapping[str, Sequence[Sample]], images: Images) -> dict[str, list[Sample]]:
        edits = [self.edits[sample.sample_id] for sample in next(iter(samples.values()))]
        results = {}
        for name, scored in super().score(samples, images).items():
            pixels = [np.asarray(image) for image in images[name]]
            verdicts = judge(self.network, to_tensor(pixels), edits)
            errors = [error_in_mask(image, edit) for image, edit in zip(pixels, edits, strict=True)]
            truths = [
                {ERROR: error, ASKED: float(verdict.asked), FOLLOWED: float(verdict.followed)}
                for error, verdict in zip(errors, verdicts, strict=True)
            ]
            results[name] = [
                replace(sample, scores={**(sample.scores or {}), **truth})
                for sample, truth in zip(scored, truths, strict=True)
            ]
        return results


def error_in_mask(image: np.ndarray, edit: Edit) -> float:
    """image: uint8 (64, 64, 3), a result of `edit`, whose mask is not empty."""
    mask = edit.mask()
    return float(np.abs(image.astype(float) - render(edit.target))[mask].mean() / 255)
