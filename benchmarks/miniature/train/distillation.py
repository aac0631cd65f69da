"""The ablation of the distillation loss: small models trained alike, but for the features that theirs are drawn to.

The paper's model starts from LlamaGen's weights; these start from some layers of the committed EditAR, as DistilBERT
starts from every other layer of its teacher (Sanh et al. 2019). Within a seed all have the same initial weights (but
those of the alignment, which are random), pairs, order and conditional dropout.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.miniature.evaluate.backbones import load_perception
from benchmarks.miniature.evaluate.perception import PerceptionConfig
from benchmarks.miniature.paths import WEIGHTS
from benchmarks.miniature.train import transformer
from benchmarks.miniature.train.shards import shard_path
from benchmarks.miniature.train.teachers import CLIP, DINO, NONE, Examples, write_examples
from benchmarks.miniature.train.tokens import Mixture, Sequences
from benchmarks.miniature.train.transformer import MiniatureEditAR, miniature_loss
from benchmarks.miniature.world.piebench import world_digest
from editar.config import TransformerConfig
from editar.io.atomic import replacing_folder
from editar.io.digests import file_digest, list_digest
from editar.model.checkpoint import read_model, save_folder
from editar.model.files import Parts
from editar.model.text import WordTextEncoder
from editar.training.loop import TrainConfig, train
from editar.training.loss import DISTILLATION_WEIGHT
from editar.training.settings import keep

TEACHERS = (NONE, DINO, CLIP)
WIDTHS = {DINO: PerceptionConfig().widths[2], CLIP: PerceptionConfig().embedding}
PERCEPTION, EDITAR = WEIGHTS / "perception.safetensors", WEIGHTS / "editar"


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
    training=TrainConfig(
        steps=100, batch_size=16, learning_rate=5e-4, warmup_steps=10, decay_steps=50, checkpoint_every=20,
        log_every=5,
    ),
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
