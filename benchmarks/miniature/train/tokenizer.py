"""The miniature's tokenizer: VQ-16 with one level less, narrow layers and a small codebook, and how it is trained."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.miniature.train.stages import trained_weights
from benchmarks.miniature.world.batches import tokenizer_batch
from editar.config import VQConfig
from editar.model.vq import VQModel
from editar.training.loop import TrainConfig, train
from editar.training.vq_training import decoder_loss, encoder_loss, initialise, patch_codebook

CONFIG = VQConfig(
    channels=16, multipliers=(1, 2, 4, 6), res_blocks=1, latent_channels=64, codebook_size=2560, norm_groups=2
)
CODEBOOK_IMAGES = 3840
ENCODER = TrainConfig(
    steps=4000, batch_size=16, learning_rate=2e-3, weight_decay=1e-4, warmup_steps=30, decay_steps=3000,
    checkpoint_every=100, log_every=20,
)  # fmt: skip
REFINING = replace(ENCODER, steps=1000, learning_rate=1e-3, warmup_steps=30, decay_steps=900)
DISTORTION_WEIGHT = 20.0  # while refining
DECODER = replace(ENCODER, steps=2200, decay_steps=1800)
STAGES = ("encoder", "refining", "decoder")


class _Part(nn.Module):
    """One side of a tokenizer, so that the loop trains and checkpoints that side alone."""

    def __init__(self, model: VQModel, names: tuple[str, ...]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: getattr(model, name) for name in names})


_ENCODER, _DECODER = ("encoder", "quant_conv"), ("decoder", "post_quant_conv")


def codebook(folder: Path) -> dict[str, Tensor]:
    """The patch codebook: made once, then read from `folder`."""
    path = folder / "codebook.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(ENCODER.seed)
        images = torch.cat([tokenizer_batch(ENCODER.seed, -1 - i, 64) for i in range(CODEBOOK_IMAGES // 64)])
        centroids, codes = patch_codebook(images, CONFIG.downsampling, CONFIG.codebook_size, CONFIG.codebook_dim)
        torch.save({"centroids": centroids, "codes": codes}, path)
    return torch.load(path, weights_only=True)


def train_tokenizer(folder: Path, stage: str, device: str = "cpu") -> None:
    """Run one of STAGES, from the end of the stage before it or from where `folder` stopped."""
    model = load_tokenizer(folder).to(device).to(memory_format=torch.channels_last)
    centroids = codebook(folder)["centroids"].to(device)
    config, names = {"encoder": (ENCODER, _ENCODER), "refining": (REFINING, _ENCODER), "decoder": (DECODER, _DECODER)}[
        stage
    ]

    def batch(step: int) -> Tensor:
        return tokenizer_batch(config.seed + STAGES.index(stage), step, config.batch_size).to(device)

    def loss(part: nn.Module, images: Tensor, step: int) -> dict[str, Tensor]:
        if stage == "decoder":
            return decoder_loss(model, images)
        return encoder_loss(model, images, centroids, DISTORTION_WEIGHT if stage == "refining" else 0.0)

    train(_Part(model, names), loss, batch, config, folder / stage)


def load_tokenizer(folder: Path) -> VQModel:
    """The tokenizer as last saved in `folder`; a side that has not begun is untrained."""
    torch.manual_seed(ENCODER.seed)
    model = VQModel(CONFIG)
    initialise(model, codebook(folder)["codes"])
    for stage, names in zip(STAGES, (_ENCODER, _ENCODER, _DECODER), strict=True):
        if (folder / stage / "last.pt").exists():
            _Part(model, names).load_state_dict(trained_weights(folder / stage))
    return model.eval().to(memory_format=torch.channels_last)
