"""The translation benchmarks for `benchmarks.runs.execute`: records become requests, images scores."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch

from baselines.method import TranslateRequest
from benchmarks.datasets.translation import TranslationDataset, TranslationRecord, TranslationRow
from benchmarks.datasets.translation_protocols import TranslationProtocol
from benchmarks.runs.edit_benchmark import facts_of, to_tensor
from benchmarks.runs.execute import Images, sample_seed
from benchmarks.runs.schema import Facts, Sample, Scoring
from metrics.networks.backbones import TranslationBackbones
from metrics.protocols.translation import TRANSLATION_COLUMNS, TranslationScorer
from reports.sheets.sheet import SampleView


class TranslationBenchmark:
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
        self.task = dataset.task
        self.protocol = protocol.name
        self.columns = TRANSLATION_COLUMNS[dataset.task]
        self.scorer = TranslationScorer(
            dataset.task,
            backbones,
            canny=protocol.canny,
            depth_normalisation=protocol.depth_normalisation,
            classes=dataset.classes,
        )
        self.records = protocol.samples(dataset)

    @property
    def facts(self) -> Facts:
        """What samples.parquet says of each sample: source_id is equal where the real image is; draw numbers the
        images of one prompt, "0" where there is only one."""
        return {
            sample_id: {"source_id": record.image_sha256, "draw": str(number)}
            for record in self.dataset.records
            for number, sample_id in enumerate(self.options.sample_ids(record.sample_id))
        }

    def scoring(self) -> Scoring:
        networks = {name: getattr(self.backbones, name) for name in ("features", "depth", "segmentation")}
        return Scoring(
            precision="float32",
            backbones={name: facts_of(each) for name, each in networks.items() if each is not None},
            options=asdict(self.options),
        )

    def request(self, sample_id: str) -> TranslateRequest:
        row = self._row(sample_id)
        return TranslateRequest(
            sample_id=sample_id,
            condition=self.options.condition(row),
            caption=row.record.caption,
            task=self.task,
            seed=sample_seed(self.seed, self.protocol, sample_id),
        )

    def view(self, sample_id: str) -> SampleView:
        return view_translation(self.dataset, self.options, self.records[sample_id])

    def score(self, samples: Mapping[str, Sequence[Sample]], images: Images) -> dict[str, list[Sample]]:
        names = [sample.sample_id for sample in next(iter(samples.values()))]
        labels = torch.from_numpy(np.stack([self.options.label(self._row(name)) for name in names]))
        results = {}
        for method, its_images in images.items():
            scores, counts = self.scorer.score(to_tensor(its_images, self.device), labels, names)
            scored = zip(samples[method], scores, counts, strict=True)
            results[method] = [sample.scored(each, pixels) for sample, each, pixels in scored]
        return results

    def _row(self, sample_id: str) -> TranslationRow:
        return self.dataset.row(self.records[sample_id])


def view_translation(
    dataset: TranslationDataset, protocol: TranslationProtocol, record: TranslationRecord
) -> SampleView:
    row = dataset.row(record)
    return SampleView(
        texts={"caption": record.caption},
        pictures={"condition": protocol.condition(row), "real image": protocol.image(row)},
    )
