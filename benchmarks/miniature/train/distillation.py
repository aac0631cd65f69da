"""The ablation of the distillation loss: small models trained alike, but for the features that theirs are drawn to.

The paper's model starts from LlamaGen's weights; these start from some layers of the committed EditAR, as DistilBERT
starts from every other layer of its teacher (Sanh et al. 2019). Within a seed all have the same initial weights (but
those of the alignment, which are random), pairs, order and conditional dropout.

Both teachers' stand-ins are uses of the perception network: its features in mid-depth for DINOv2, what its image-text
branch says of each cell for CLIP. They are averaged over the student's grid and standardised channel by channel: the
published encoders' features leave a layer norm, and the loss has one weight for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.miniature import WEIGHTS
from benchmarks.miniature.evaluate.backbones import load_perception
from benchmarks.miniature.evaluate.perception import Perception, PerceptionConfig
from benchmarks.miniature.train import transformer
from benchmarks.miniature.train.shards import joined, open_shards, shard_path, write_missing
from benchmarks.miniature.train.stages import settings
from benchmarks.miniature.train.tokens import Mixture, Sequences, draw_pairs, tokenised
from benchmarks.miniature.train.transformer import MiniatureEditAR, miniature_loss
from benchmarks.miniature.world.embedded import world_digest
from benchmarks.miniature.world.render import BATCH, to_tensor
from benchmarks.miniature.world.scene import GRID
from editar.config import TransformerConfig
from editar.io.atomic import replacing_folder
from editar.io.digests import file_digest, list_digest
from editar.model.checkpoint import read_model, save_folder
from editar.model.files import Parts
from editar.model.text import WordTextEncoder
from editar.model.vq import VQModel
from editar.training.loop import TrainConfig, train
from editar.training.loss import DISTILLATION_WEIGHT
from editar.training.settings import keep

NONE, DINO, CLIP = "none", "dinov2", "clip"
FEATURE_SIDE = GRID // 2  # the student's alignment halves the grid of its tokens
TEACHERS = (NONE, DINO, CLIP)
WIDTHS = {DINO: PerceptionConfig().widths[2], CLIP: PerceptionConfig().embedding}
PERCEPTION, EDITAR = WEIGHTS / "perception.safetensors", WEIGHTS / "editar"


@torch.inference_mode()
def features(network: Perception, images: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """uint8 images (64, 64, 3) -> {teacher: float32 (n, 16, D)}, patches row by row; D is 80 or 128."""
    parts: dict[str, list[Tensor]] = {DINO: [], CLIP: []}
    for start in range(0, len(images), BATCH):
        maps = network.features(to_tensor(list(images[start : start + BATCH])))
        cells = network.embed_cells(maps).transpose(1, 2).unflatten(2, (GRID, GRID))
        for name, grid in ((DINO, maps[2]), (CLIP, cells)):
            parts[name].append(F.adaptive_avg_pool2d(grid, FEATURE_SIDE).flatten(2).transpose(1, 2))
    return {name: torch.cat(found) for name, found in parts.items()}


def write_examples(
    folder: Path,
    tokenizer: VQModel,
    text: WordTextEncoder,
    network: Perception,
    mixture: Mixture,
    count: int,
    scenes: int,
) -> None:
    """Write the missing ones of `count` shards of sequences, with both teachers' features of the targets."""

    def make(index: int) -> Mapping[str, np.ndarray]:
        images, rows = draw_pairs(mixture, index, scenes)
        arrays = tokenised(tokenizer, text, images, rows).arrays()
        known = features(network, images)
        return arrays | {name: known[name][rows["target"]].numpy().astype(np.float16) for name in known}

    write_missing(folder, count, make)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """All pairs of the shards, with the standardised features (n, 16, D) of one teacher, or None."""

    sequences: Sequences
    teacher: Tensor | None

    @classmethod
    def read(cls, folder: Path, count: int, teacher: str) -> "Examples":
        """teacher: NONE, DINO or CLIP."""
        shards = open_shards(folder, count)
        sequences = Sequences.join(shards)
        if teacher == NONE:
            return cls(sequences=sequences, teacher=None)
        raw = joined(shards, teacher)
        spread, mean = torch.std_mean(raw.float(), dim=(0, 1))
        return cls(sequences=sequences, teacher=((raw - mean) / spread.clamp(min=1e-6)).half())

    def batch(self, seed: int, step: int, size: int) -> tuple[Sequences, Tensor | None]:
        """`size` pairs, a function of (seed, step) alone, and so the same ones for every teacher."""
        rows = np.random.default_rng((seed, 4, step)).integers(len(self.sequences.task), size=size)
        chosen = torch.from_numpy(rows)
        return self.sequences.pick(chosen), None if self.teacher is None else self.teacher[chosen].float()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all trainings of the ablation have in common; `training.seed` becomes each of `seeds`.

    layers: those of the committed EditAR that a model starts with. mixture, shards, scenes: the pairs, and how many of
    them there are.
    """

    seeds: tuple[int, ...]
    layers: tuple[int, ...]
    training: TrainConfig
    mixture: Mixture
    shards: int
    scenes: int

    def data(self) -> dict[str, Any]:
        """All that determines the pairs, as JSON."""
        return {
            "mixture": asdict(self.mixture),
            "shards": self.shards,
            "scenes": self.scenes,
            "world": world_digest(),
            "perception": file_digest(PERCEPTION),
            "tokenizer": file_digest(EDITAR / "vq.safetensors"),
        }

    def facts(self, teacher: str, seed: int, pairs: str) -> dict[str, Any]:
        """All that determines one training, as JSON. pairs: digest of the shards."""
        return {
            "teacher": teacher,
            "distillation_weight": 0.0 if teacher == NONE else DISTILLATION_WEIGHT,
            "start": {name: file_digest(EDITAR / f"{name}.safetensors") for name in ("transformer", "text")},
            "layers": self.layers,
            "model": asdict(self.student(teacher)),
            "training": asdict(replace(self.training, seed=seed)),
            "pairs": pairs,
        }

    def student(self, teacher: str) -> TransformerConfig:
        """The size of the model, as wide at its alignment as the teacher's features."""
        width = WIDTHS.get(teacher, transformer.CONFIG.distillation_dim)
        return replace(transformer.CONFIG, layers=len(self.layers), distillation_dim=width)


PLAN = Plan(
    seeds=(0, 1),
    layers=(0, 2, 4),
    training=settings("student"),
    mixture=Mixture(seed=3, types="23678", translations=False),
    shards=6,
    scenes=1024,
)  # fmt: skip


def make_examples(plan: Plan, folder: Path) -> Path:
    """Write the shards of `plan` that `folder` lacks; returns it. Raises ValueError if it has another plan's."""
    keep(plan.data(), folder)
    network, _ = load_perception(PERCEPTION)
    tokenizer, text = read_model(EDITAR).load().vq, WordTextEncoder(transformer.TEXT)
    write_examples(folder, tokenizer, text, network, plan.mixture, plan.shards, plan.scenes)
    return folder


def examples_digest(plan: Plan, folder: Path) -> str:
    """SHA-256 over the shards that `make_examples` wrote."""
    return list_digest(file_digest(shard_path(folder, index)) for index in range(plan.shards))


def start(plan: Plan, teacher: str, seed: int) -> MiniatureEditAR:
    """The model before its training: for equal seeds the same weights whatever the teacher, but the alignment's."""
    whole = read_model(EDITAR).load()
    torch.manual_seed(seed)
    module = MiniatureEditAR(plan.student(teacher))
    pruned = whole.transformer
    pruned.layers = nn.ModuleList(pruned.layers[layer] for layer in plan.layers)
    pruned.alignment = module.transformer.alignment
    module.transformer.load_state_dict(pruned.state_dict())
    assert isinstance(whole.text, WordTextEncoder)
    module.text.load_state_dict(whole.text.state_dict())
    return module


def distillation_loss(
    module: MiniatureEditAR, batch: tuple[Sequences, Tensor | None], step: int = 0
) -> dict[str, Tensor]:
    """The first stage's loss of the miniature, with the teacher's features of the targets where there are any."""
    sequences, teacher = batch
    device = module.text.positions.device
    return miniature_loss(module, sequences, False, False, teacher if teacher is None else teacher.to(device))


def train_student(plan: Plan, teacher: str, seed: int, examples: Path, folder: Path, device: str = "cpu") -> Path:
    """Train, or go on where `folder` stopped; returns the folder of the finished model, as `EditAR` reads it.

    Raises ValueError if `folder` has a training with other settings.
    """
    keep(plan.facts(teacher, seed, examples_digest(plan, examples)), folder)
    finished = folder / "model"
    if finished.is_dir():
        return finished
    config = replace(plan.training, seed=seed)
    pairs = Examples.read(examples, plan.shards, teacher)
    module = start(plan, teacher, seed).to(device)
    train(module, distillation_loss, lambda step: pairs.batch(seed, step, config.batch_size), config, folder)
    module.cpu()
    whole = read_model(EDITAR).load()
    parts = Parts(vq=whole.vq, transformer=module.transformer, text=module.text, sampling=whole.sampling)
    with replacing_folder(finished) as unfinished:
        save_folder(unfinished, parts)
    return finished
