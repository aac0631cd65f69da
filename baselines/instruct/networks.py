"""The networks of a row, read from a checkpoint in LDM's layout or from diffusers' folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from baselines.instruct.files import Folders
from baselines.inversion.stable_diffusion import StableDiffusion, read_scheduler_config
from baselines.unified.checkpoint import EMA, Sizes
from baselines.unified.files import Files
from baselines.unified.stable_diffusion import read_stable_diffusion
from editar.io.tensors import map_pickle

# What Stable Diffusion 1 was trained with; a checkpoint has it as tables, if at all.
LDM_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}


def scheduler_config(found: Files | Folders) -> dict[str, Any]:
    """The noise schedule of the training, as diffusers' schedulers are configured."""
    return read_scheduler_config(found.base) if isinstance(found, Folders) else dict(LDM_SCHEDULE)


def has_average(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has the moving average of the UNet's weights; pruned ones may have lost it."""
    return any(name.startswith(EMA) for name in state)


def uses_average(found: Files | Folders, averaged: bool) -> bool | None:
    """Whether the UNet is read from a moving average; None for a port, which does not say what it was made of."""
    return None if isinstance(found, Folders) else averaged and has_average(map_pickle(found.checkpoint)[0])


def read(found: Files | Folders, averaged: bool, device: str, dtype: str) -> StableDiffusion:
    """averaged: whether a moving average is taken where there is one. Raises ValueError for weights that are missing or
    too many, and where the UNet sees no image."""
    if isinstance(found, Folders):
        model = StableDiffusion.from_folder(found.base, device, dtype, unet=found.unet, text_encoder=found.text_encoder)
        place: Path = found.unet
    else:
        model, place = _read_checkpoint(found, averaged, device, dtype), found.checkpoint
    inputs, needed = model.unet.config.in_channels, 2 * model.vae.config.latent_channels
    if inputs != needed:
        raise ValueError(
            f"{place}: its UNet reads {inputs} channels; editing takes {needed}, half of them the image's. Use the "
            "weights that were tuned for editing"
        )
    return model


def _read_checkpoint(files: Files, averaged: bool, device: str, dtype: str) -> StableDiffusion:
    path = files.checkpoint
    state, _ = map_pickle(path)
    sizes = Sizes.of(state, path)
    average = averaged and has_average(state)
    parts = read_stable_diffusion(state, sizes, path, files.tokenizer, device, ema=average)
    parts.tokenizer.model_max_length = sizes.text_positions
    for network in (parts.unet, parts.vae, parts.text_encoder):
        nn.Module.to(network, getattr(torch, dtype))  # diffusers' own `to` warns of casts, though nothing is to be kept
    return StableDiffusion(
        unet=parts.unet,
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        scheduler_config=dict(LDM_SCHEDULE),
        device=device,
        dtype=dtype,
    )
