"""The miniature's tokenizer: VQ-16 with one level less, narrow layers and a small codebook, and how it is trained."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.miniature.train.stages import settings, trained_weights
from benchmarks.miniature.world.edits import training_edits
from benchmarks.miniature.world.render import condition, render, to_tensor
from editar.config import VQConfig
from editar.io.digests import is_reusable, replacing_checked
from editar.model.vq import VQModel
from editar.prompts import TASKS
from editar.training.loop import train
from editar.training.vq_training import decoder_loss, encoder_loss, initialise, patch_codebook

CONFIG = VQConfig(
    channels=16, multipliers=(1, 2, 4, 6), res_blocks=1, latent_channels=64, codebook_size=2560, norm_groups=2
)
SEED, CODEBOOK_IMAGES = 0, 3840
DISTORTION_WEIGHT = 20.0  # while refining
STAGES = ("encoder", "refining", "decoder")


def tokenizer_batch(seed: int, step: int, size: int) -> Tensor:
    """Images (size, 3, 64, 64) in [-1, 1]: three in four of them photos and edits, the others condition images."""
    rng = np.random.default_rng((seed, step % 2**32, 1))
    images: list[np.ndarray] = []
    for edit in training_edits(seed, step):
        scene = edit.target if rng.random() < 0.5 else edit.source
        images.append(condition(edit.source, TASKS[rng.integers(3)]) if rng.random() < 0.25 else render(scene))
        if len(images) == size:
            return to_tensor(images)
    raise AssertionError("training_edits ends only with its reader")


class _Part(nn.Module):
    """One side of a tokenizer, so that the loop trains and checkpoints that side alone."""

    def __init__(self, model: VQModel, names: tuple[str, ...]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: getattr(model, name) for name in names})


_ENCODER, _DECODER = ("encoder", "quant_conv"), ("decoder", "post_quant_conv")


def codebook(folder: Path) -> dict[str, Tensor]:
    """The patch codebook: made once, then read from `folder`."""
    path = folder / "codebook.pt"
    if not is_reusable(path):
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(SEED)
        images = torch.cat([tokenizer_batch(SEED, -1 - i, 64) for i in range(CODEBOOK_IMAGES // 64)])
        centroids, codes = patch_codebook(images, CONFIG.downsampling, CONFIG.codebook_size, CONFIG.codebook_dim)
        with replacing_checked(path) as file:
            torch.save({"centroids": centroids, "codes": codes}, file)
    return torch.load(path, weights_only=True)


def train_tokenizer(folder: Path, stage: str, device: str = "cpu") -> None:
    """Run one of STAGES, from the end of the stage before it or from where `folder` stopped."""
    model = load_tokenizer(folder).to(device).to(memory_format=torch.channels_last)
    centroids = codebook(folder)["centroids"].to(device)
    config, names = settings(stage), _DECODER if stage == "decoder" else _ENCODER

    def batch(step: int) -> Tensor:
        return tokenizer_batch(config.seed + STAGES.index(stage), step, config.batch_size).to(device)

    def loss(part: nn.Module, images: Tensor, step: int) -> dict[str, Tensor]:
        if stage == "decoder":
            return decoder_loss(model, images)
        return encoder_loss(model, images, centroids, DISTORTION_WEIGHT if stage == "refining" else 0.0)

    train(_Part(model, names), loss, batch, config, folder / stage)


def load_tokenizer(folder: Path) -> VQModel:
    """The tokenizer as last saved in `folder`; a side that has not begun is untrained."""
    torch.manual_seed(SEED)
    model = VQModel(CONFIG)
    initialise(model, codebook(folder)["codes"])
    for stage, names in zip(STAGES, (_ENCODER, _ENCODER, _DECODER), strict=True):
        if (folder / stage / "last.pt").exists():
            _Part(model, names).load_state_dict(trained_weights(folder / stage))
    return model.eval().to(memory_format=torch.channels_last)
