"""Losses of the miniature's latent diffusion on held-out scenes or edits, the same ones and noise at every call."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from benchmarks.miniature.train.diffusion_training import (
    CONTROLS,
    INSTRUCT,
    Plan,
    edit_noise_error,
    load_control,
    load_instruct,
    load_text_to_image,
    load_vae,
    noise_error,
    spread_timesteps,
    task_of,
)
from benchmarks.miniature.train.latents import Encoded, Pairs, load_tokenizer, make_pairs, make_shard
from benchmarks.miniature.world.edits import KINDS
from benchmarks.miniature.world.piebench import held_out_edits
from benchmarks.miniature.world.render import render, to_tensor
from benchmarks.miniature.world.translation import held_out_scenes

SEED = 4
_BATCH = 64


@torch.inference_mode()
def validate(plan: Plan, folder: Path, stage: str, device: str = "cpu") -> dict[str, float]:
    """Of a finished stage: the autoencoder's PSNR in dB, or the error of the predicted noise, over all timesteps and
    over the noisier half, where the layout is decided."""
    vae = load_vae(plan, folder).to(device)
    if stage == INSTRUCT:
        return _instruct_error(plan, folder, vae, device)
    held_out = held_out_scenes("depth", plan.sample, seed=SEED)
    if stage == "vae":
        images = to_tensor([render(scene) for scene in held_out]).to(device)
        return {"psnr": _psnr(torch.cat([_restore(vae, part) for part in images.split(_BATCH)]), images)}
    base = load_text_to_image(plan, folder).to(device)
    control = load_control(plan, folder, stage).to(device) if stage in CONTROLS else None
    data = Encoded.join([make_shard(vae, load_tokenizer(folder / "tokenizer"), held_out)], maps=task_of(stage))
    return _noise_errors(
        data.latents, lambda rows, *rest: noise_error(base, control, data.pick(rows, device), *rest), device
    )


def _instruct_error(plan: Plan, folder: Path, vae: AutoencoderKL, device: str) -> dict[str, float]:
    """On edits of every type, as many of each."""
    model = load_instruct(plan, folder).to(device)
    each = math.ceil(plan.sample / (len(KINDS) - 1))
    by_type = held_out_edits({type_id: each for type_id in KINDS if type_id != "0"}, SEED)
    edits = [edit for first in range(each) for edit in by_type[first::each]]  # all types at every noise level
    pairs = make_pairs(vae, load_tokenizer(folder / "tokenizer"), [(edit.source, [edit]) for edit in edits])
    data = Pairs.join([pairs])
    return _noise_errors(
        data.target, lambda rows, *rest: edit_noise_error(model, data.pick(rows, device), *rest), device
    )


def _noise_errors(latents: Tensor, error: Callable[[Tensor, Tensor, Tensor], Tensor], device: str) -> dict[str, float]:
    """Means of `error(rows, timesteps, noise)` over the rows that `latents` has."""
    torch.manual_seed(SEED)
    timesteps, noise = spread_timesteps(len(latents)), torch.randn(latents.shape)
    errors = torch.cat([
        error(rows, timesteps[rows].to(device), noise[rows].to(device)).cpu()
        for rows in torch.arange(len(latents)).split(_BATCH)
    ])  # fmt: skip
    return {"error": errors.mean().item(), "error of the noisier half": errors[timesteps >= 500].mean().item()}


def _restore(vae, images: Tensor) -> Tensor:
    return vae.decode(vae.encode(images).latent_dist.mean).sample.clamp(-1, 1)


def _psnr(restored: Tensor, images: Tensor) -> float:
    """Mean over the images, which have a range of 2."""
    return (-10 * torch.log10((restored - images).square().mean((1, 2, 3)) / 4)).mean().item()
