"""PIE-Bench for `benchmarks.runs.execute`: records become requests, images the seven columns."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from baselines.method import EditRequest
from benchmarks.datasets.notes import listed
from benchmarks.datasets.piebench import PieBench, PieBenchRecord
from benchmarks.runs.execute import Images, sample_seed
from benchmarks.runs.schema import CUT_PROMPTS, FOLLOWED, Facts, Network, Sample, Scoring
from metrics.networks.backbones import Backbone, Backbones
from metrics.protocols.pie_bench import PIE_BENCH_COLUMNS, PieBenchScorer
from reports.sheets.sheet import SampleView

PROTOCOL = "pie-bench/v1"
COLUMNS = PIE_BENCH_COLUMNS


class Judge(Protocol):
    """Knows the true results. name: goes into the manifest."""

    name: str

    def followed(self, sample_id: str, image: np.ndarray) -> bool:
        """Whether the edited image, uint8 (H, W, 3), is what the sample's instruction asks for."""
        ...


class EditBenchmark:
    """device: a torch device string, where the backbones are. judge: for the column `followed`, 1 or 0."""

    protocol = PROTOCOL
    columns: tuple[str, ...] = COLUMNS

    def __init__(
        self,
        dataset: PieBench,
        backbones: Backbones,
        precision: str,
        seed: int,
        device: str,
        judge: Judge | None = None,
    ) -> None:
        self.records: dict[str, PieBenchRecord] = {record.sample_id: record for record in dataset.records}
        self.seed = seed
        self.device = device
        self.precision = precision
        self.backbones = backbones
        self.scorer = PieBenchScorer(backbones, precision=precision)
        self.judge = judge
        if judge:
            self.columns = (*self.columns, FOLLOWED)
        cut = backbones.clip.too_long([record.target_prompt for record in dataset.records])
        self.cut_prompts = [record.sample_id for record, is_cut in zip(dataset.records, cut, strict=True) if is_cut]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the scores."""
        notes = []
        if self.cut_prompts:
            which = f"{listed(self.cut_prompts)} are too long for {self.backbones.clip.name}"
            notes.append(f"the target prompts of {which}, which scores their beginning")
        if self.backbones.structure.official:
            notes.append(
                f"nobody publishes the digest of {self.backbones.structure.name}'s weights; yours is "
                f"{self.backbones.structure.digest}, and is in the manifest"
            )
        return tuple(notes)

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

    def scoring(self) -> Scoring:
        networks = {name: getattr(self.backbones, name) for name in ("structure", "perceptual", "clip")}
        return Scoring(
            precision=self.precision,
            backbones={name: facts_of(each) for name, each in networks.items()},
            options=self._options() or None,
        )

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {CUT_PROMPTS: self.cut_prompts} if self.cut_prompts else {}
        return options | ({FOLLOWED: self.judge.name} if self.judge else {})

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

    def view(self, sample_id: str) -> SampleView:
        return view_edit(self.records[sample_id])

    def score(self, samples: Mapping[str, Sequence[Sample]], images: Images) -> dict[str, list[Sample]]:
        records = [self.records[sample.sample_id] for sample in next(iter(samples.values()))]
        results = self.scorer.score(
            to_tensor([record.image() for record in records], self.device),
            torch.from_numpy(np.stack([record.mask() for record in records])[:, None]).to(self.device),
            [record.target_prompt for record in records],
            {name: to_tensor(edits, self.device) for name, edits in images.items()},
            masked=[record.mask_runs is not None for record in records],
        )
        return {
            name: [
                sample.scored({**each, **self._truth(sample.sample_id, image)})
                for sample, each, image in zip(samples[name], scores, images[name], strict=True)
            ]
            for name, scores in results.items()
        }

    def _truth(self, sample_id: str, image: Image.Image) -> dict[str, float]:
        return {FOLLOWED: float(self.judge.followed(sample_id, np.asarray(image)))} if self.judge else {}


def facts_of(network: Backbone) -> Network:
    """What the manifest says of a network that scores."""
    return Network(name=network.name, official=network.official, digest=network.digest)


def to_tensor(images: Sequence[Image.Image], device: str) -> torch.Tensor:
    """RGB images of one size as float (B, 3, H, W) in [0, 1], multiples of 1/255."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return pixels.to(device).permute(0, 3, 1, 2).float().div(255)


def view_edit(record: PieBenchRecord) -> SampleView:
    """The mask is shown without the frame of a pixel that the official evaluation adds to every one."""
    mask = None if record.mask_runs is None else np.pad(record.mask()[1:-1, 1:-1], 1, mode="edge")
    words = {"blend words": " → ".join(record.blend_words)} if record.blend_words else {"blend words": "none"}
    return SampleView(
        texts={
            "instruction": record.instruction,
            "source prompt": record.source_prompt,
            "target prompt": record.target_prompt,
            **words,
        },
        pictures={"source": record.image()},
        mask=mask,
    )
