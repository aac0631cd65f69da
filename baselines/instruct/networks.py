"""The networks of a row, read from a checkpoint in LDM's layout or from diffusers' folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baselines.instruct.files import Checkpoint, Folders
from baselines.stable_diffusion.ldm import EMA, Sizes, read_stable_diffusion
from baselines.stable_diffusion.networks import LDM_SCHEDULE, StableDiffusion, read_scheduler_config
from editar.io.tensors import map_pickle


def scheduler_config(found: Checkpoint | Folders) -> dict[str, Any]:
    """The noise schedule of the training, as diffusers' schedulers are configured."""
    return read_scheduler_config(found.base) if isinstance(found, Folders) else dict(LDM_SCHEDULE)


def has_average(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has the moving average of the UNet's weights; pruned ones may have lost it."""
    return any(name.startswith(EMA) for name in state)


def uses_average(found: Checkpoint | Folders, averaged: bool) -> bool | None:
    """Whether the UNet is read from a moving average; None for a port, which does not say what it was made of."""
    return None if isinstance(found, Folders) else averaged and has_average(map_pickle(found.path)[0])


def read(found: Checkpoint | Folders, averaged: bool, device: str, dtype: str) -> StableDiffusion:
    """averaged: whether a moving average is taken where there is one. Raises ValueError for weights that are missing or
    too many, and where the UNet sees no image."""
    if isinstance(found, Folders):
        model = StableDiffusion.from_folder(found.base, device, dtype, unet=found.unet, text_encoder=found.text_encoder)
        place: Path = found.unet
    else:
        place = found.path
        state, _ = map_pickle(place)
        average = averaged and has_average(state)
        model = read_stable_diffusion(state, Sizes.of(state, place), place, found.tokenizer, device, dtype, ema=average)
    inputs, needed = model.unet.config.in_channels, 2 * model.vae.config.latent_channels
    if inputs != needed:
        raise ValueError(
            f"{place}: its UNet reads {inputs} channels; editing takes {needed}, half of them the image's. Use the "
            "weights that were tuned for editing"
        )
    return model
