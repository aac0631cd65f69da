"""Stable Diffusion 1.x from a diffusers folder: images to latents and back, prompts to embeddings, noise predictions.

The folder is `diffusion/` beside the miniature's other weights, and for the paper suite `stable-diffusion-v1-4/` in the
user's weights, else CompVis/stable-diffusion-v1-4 in the hub's cache. Nothing is downloaded.
"""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from baselines.checkpoints import miniature_weights
from baselines.method import MethodContext
from editar.checkpoint import file_digest

REPOSITORY = "CompVis/stable-diffusion-v1-4"
FOLDER = REPOSITORY.split("/")[1]
MINIATURE_FOLDER = "diffusion"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# What must be there. Pickled weights (.bin) are not read.
FILES = (
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "scheduler/scheduler_config.json",
)


def find_folder(context: MethodContext) -> Path:
    """The folder with all of FILES. Raises ValueError where there is none, or files are missing, and Unsupported where
    the miniature's own has not been made."""
    if context.suite == "miniature":
        folder = miniature_weights(context.weights) / MINIATURE_FOLDER
        remedy = "--weights DIR names the folder that holds it"
    else:
        folder = _official_folder(context.weights)
        remedy = f"put the safetensors files of {REPOSITORY} there, as --weights DIR, or fetch it into the hub's cache"
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise ValueError(f"{folder} is no Stable Diffusion: {', '.join(missing)} missing; {remedy}")
    return folder


def _official_folder(weights: Path | None) -> Path:
    if weights is not None and (weights / FOLDER).is_dir():
        return weights / FOLDER
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(REPOSITORY, FILES[0])
    return Path(cached).parents[1] if isinstance(cached, str) else (weights or Path("weights")) / FOLDER


def files_read(folder: Path) -> list[str]:
    """All that is read of a folder, and so all that a result can depend on: FILES and what else a tokenizer has."""
    tokenizer = {path.relative_to(folder).as_posix() for path in (folder / "tokenizer").iterdir()}
    return sorted(tokenizer.union(FILES))


def digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each file, by name; read once in a process, since several methods share gigabytes."""
    return {name: _digest(folder / name, *_stamp(folder / name)) for name in files}


def _stamp(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    return file_digest(path)


class StableDiffusion:
    """The networks in evaluation mode. Latents and embeddings are float32; `dtype` is what the networks compute in."""

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        self.device, self.dtype = torch.device(device), DTYPES[dtype]
        self.scheduler_config = _scheduler_config(folder)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.unet = self._load(UNet2DConditionModel, folder / "unet", low_cpu_mem_usage=False)
        self.vae = self._load(AutoencoderKL, folder / "vae", low_cpu_mem_usage=False)
        self.text_encoder = self._load(CLIPTextModel, folder / "text_encoder")

    def _load(self, kind: Any, folder: Path, **options: Any) -> Any:
        network, report = kind.from_pretrained(
            folder, dtype=self.dtype, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        )
        if missing := sorted(report["missing_keys"]):  # the libraries would only warn and leave them random
            raise ValueError(f"{folder} lacks {len(missing)} of its weights, {missing[0]} first; get its files again")
        return network.requires_grad_(False).eval().to(self.device)

    @property
    def tokens(self) -> int:
        """How many tokens a prompt is padded or cut to."""
        return self.tokenizer.model_max_length

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """(B, tokens, dim) of the last hidden layer; longer prompts are cut, as in the published runs."""
        ids = self.tokenizer(
            list(prompts), padding="max_length", max_length=self.tokens, truncation=True, return_tensors="pt"
        ).input_ids
        return self.text_encoder(ids.to(self.device))[0].float()

    @torch.no_grad()
    def encode(self, image: Image.Image, noise: torch.Generator | None = None) -> Tensor:
        """RGB -> (C, h, w): the mean of the posterior, or with a CPU generator a sample of it."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
        posterior = self.vae.encode(pixels.to(self.device, self.dtype)).latent_dist
        latent = posterior.mean.float()
        if noise is not None:
            latent = latent + posterior.std.float() * torch.randn(latent.shape, generator=noise).to(self.device)
        return latent[0] * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """(C, h, w) -> (3, H, W) in [0, 1]; one image at a time, which bounds the memory."""
        pixels = self.vae.decode((latent[None] / self.vae.config.scaling_factor).to(self.dtype)).sample
        return (pixels[0].float() / 2 + 0.5).clamp(0, 1)

    def noise(self, latents: Tensor, timestep: int, embeddings: Tensor) -> Tensor:
        """The predicted noise (B, C, h, w) of latents at a timestep, given embeddings (B, tokens, dim)."""
        predicted = self.unet(latents.to(self.dtype), timestep, encoder_hidden_states=embeddings.to(self.dtype))
        return predicted.sample.float()


def _scheduler_config(folder: Path) -> dict[str, Any]:
    from diffusers import DDIMScheduler

    config = DDIMScheduler.load_config(folder / "scheduler")
    if (kind := config.get("prediction_type", "epsilon")) != "epsilon":
        raise ValueError(f"{folder} predicts {kind!r}; these methods are defined for networks that predict the noise")
    return dict(config)
