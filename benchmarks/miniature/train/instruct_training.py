"""How the miniature's InstructPix2Pix is trained on the world's edits, from the text-to-image model.

The recipe is the published one (Brooks et al. 2023, section 3.2): the U-Net also reads the source's latents, through
channels of its first convolution that start at zero; text and source are left out now and then, for guidance by each.
One thing differs. Stable Diffusion's text encoder had read all kinds of text and stays frozen; the miniature's has read
captions alone, in which "make", "turn" or "remove" never occur. So this model has a text encoder of its own, which goes
on learning from the text-to-image model's.
"""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.miniature.train.diffusion_networks import TextToImage, silence_unknown_words
from benchmarks.miniature.train.diffusion_training import (
    INSTRUCT,
    SCHEDULER,
    Plan,
    finished,
    frozen,
    load_text_to_image,
    spread_timesteps,
)
from benchmarks.miniature.train.edit_pairs import Pairs, read_pairs
from benchmarks.miniature.train.latents import load_tokenizer, read_words
from editar.training.loop import train

DROPOUT = 0.05  # of the text alone, of the source alone, and of both: 5% of the examples each


def make_instruct(base: TextToImage) -> TextToImage:
    """A trainable copy of the text-to-image model whose U-Net reads a source beside the noisy latents, (B, 2C, 8, 8),
    and does not heed it yet."""
    model = copy.deepcopy(base).requires_grad_(True)
    unet, narrow = model.unet, model.unet.conv_in
    channels = narrow.in_channels
    wide = nn.Conv2d(2 * channels, narrow.out_channels, narrow.kernel_size, padding=narrow.padding)
    state = narrow.state_dict()
    wide.load_state_dict({**state, "weight": torch.cat([state["weight"], torch.zeros_like(state["weight"])], 1)})
    unet.conv_in = wide.to(narrow.weight.device)
    unet.register_to_config(in_channels=2 * channels)
    return model


def leave_out(batch: Pairs, no_words: Tensor, draws: Tensor) -> Pairs:
    """`batch` without the text, the source (zeros then) or both, by DROPOUT and `draws` (B,) from [0, 1)."""
    text = draws < 2 * DROPOUT
    source = (draws >= DROPOUT) & (draws < 3 * DROPOUT)
    return replace(
        batch,
        words=torch.where(text[:, None], no_words, batch.words),
        source=batch.source.masked_fill(source[:, None, None, None], 0.0),
    )


def edit_noise_error(model: TextToImage, batch: Pairs, timesteps: Tensor, noise: Tensor) -> Tensor:
    """Mean square error of the noise predicted in the targets, of each edit (B,)."""
    noisy = SCHEDULER.add_noise(batch.target, noise, timesteps)
    predicted = model.unet(torch.cat([noisy, batch.source], 1), timesteps, model.read(batch.words)).sample
    return (predicted.float() - noise).square().mean((1, 2, 3))


def train_instruct(plan: Plan, folder: Path, device: str) -> None:
    """Train on the shards of pairs, or go on where it stopped."""
    config = plan.training(INSTRUCT)
    model = make_instruct(load_text_to_image(plan, folder)).to(device)
    data = read_pairs(folder / "pairs", plan.pair_shards)
    no_words = read_words(load_tokenizer(folder / "tokenizer"), [""]).to(device)

    def loss(model: TextToImage, batch: Pairs, step: int) -> dict[str, Tensor]:
        count = len(batch.words)
        batch = leave_out(batch, no_words, torch.rand(count).to(device))
        noise = torch.randn(batch.target.shape).to(device)
        return {"loss": edit_noise_error(model, batch, spread_timesteps(count).to(device), noise).mean()}

    train(model, loss, partial(data.draw, config.seed, config.batch_size, device), config, folder / INSTRUCT)


def load_instruct(plan: Plan, folder: Path) -> TextToImage:
    """The finished model, frozen; words that the world does not have are silent."""
    model = make_instruct(load_text_to_image(plan, folder))
    model.load_state_dict(finished(plan, folder, INSTRUCT))
    silence_unknown_words(model.text_encoder)
    return frozen(model)
