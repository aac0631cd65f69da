"""Losses of the miniature's latent diffusion on held-out scenes, the same scenes and noise at every call."""

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.miniature.data import to_tensor
from benchmarks.miniature.diffusion_training import (
    CONTROLS,
    Plan,
    load_control,
    load_text_to_image,
    load_vae,
    noise_error,
    spread_timesteps,
)
from benchmarks.miniature.latents import join, load_tokenizer, make_shard
from benchmarks.miniature.render import render
from benchmarks.miniature.translation_dataset import held_out_scenes

SEED = 4
_BATCH = 64


@torch.inference_mode()
def validate(plan: Plan, folder: Path, stage: str, device: str = "cpu") -> dict[str, float]:
    """Of a finished stage: the autoencoder's PSNR in dB, or the error of the predicted noise, over all timesteps and
    over the noisier half, where the layout is decided."""
    held_out = held_out_scenes("depth", plan.sample, seed=SEED)
    vae = load_vae(plan, folder).to(device)
    if stage == "vae":
        images = to_tensor([render(scene) for scene in held_out]).to(device)
        return {"psnr": _psnr(torch.cat([_restore(vae, part) for part in images.split(_BATCH)]), images)}
    base = load_text_to_image(plan, folder).to(device)
    control = load_control(plan, folder, stage).to(device) if stage in CONTROLS else None
    task = stage.rsplit("-", 1)[1] if stage in CONTROLS else None
    data = join([make_shard(vae, load_tokenizer(folder / "tokenizer"), held_out)], task)
    torch.manual_seed(SEED)
    timesteps = spread_timesteps(plan.sample)
    noise = torch.randn(data.latents.shape)
    errors = torch.cat([
        noise_error(base, control, data.pick(rows, device), timesteps[rows].to(device), noise[rows].to(device)).cpu()
        for rows in torch.arange(plan.sample).split(_BATCH)
    ])  # fmt: skip
    return {"error": errors.mean().item(), "error of the noisier half": errors[timesteps >= 500].mean().item()}


def _restore(vae, images: Tensor) -> Tensor:
    return vae.decode(vae.encode(images).latent_dist.mean).sample.clamp(-1, 1)


def _psnr(restored: Tensor, images: Tensor) -> float:
    """Mean over the images, which have a range of 2."""
    return (-10 * torch.log10((restored - images).square().mean((1, 2, 3)) / 4)).mean().item()
