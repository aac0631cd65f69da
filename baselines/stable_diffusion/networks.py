"""Stable Diffusion 1.x of diffusers' modules: images to latents and back, prompts to embeddings, predicted noise."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from baselines.method import NoAnswer
from editar.io.tensors import check_archives

# What it was trained with; a checkpoint in LDM's layout has it as tables, if at all.
LDM_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}
DTYPES = ("float32", "float16", "bfloat16")


def usual_dtype(device: str) -> str:
    """float16, which the networks were published in; on a CPU float32."""
    return "float32" if device == "cpu" else "float16"


def check_dtype(dtype: str) -> None:
    """Raises ValueError for what the networks are not run in."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")


class StableDiffusion:
    """The networks in evaluation mode. Latents and embeddings are float32; `dtype` is what the networks compute in.

    unet, vae, text_encoder: in this dtype. scheduler_config: the noise schedule of the training, as diffusers'
    schedulers are configured.
    """

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler_config: dict[str, Any],
        device: str,
        dtype: str,
    ) -> None:
        self._told = False  # that a prompt was cut
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.tokenizer, self.scheduler_config = tokenizer, scheduler_config
        self.unet, self.vae, self.text_encoder = (
            network.requires_grad_(False).eval().to(self.device) for network in (unet, vae, text_encoder)
        )

    @classmethod
    def from_folder(
        cls, folder: Path, device: str, dtype: str, *, unet: Path | None = None, text_encoder: Path | None = None
    ) -> "StableDiffusion":
        """unet, text_encoder: folders of networks that take the place of the folder's own."""
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        def load(kind: Any, place: Path, **options: Any) -> Any:
            return load_network(kind, place, dtype=getattr(torch, dtype), **options)

        return cls(
            unet=load(UNet2DConditionModel, unet or folder / "unet", low_cpu_mem_usage=False),
            vae=load(AutoencoderKL, folder / "vae", low_cpu_mem_usage=False),
            text_encoder=load(CLIPTextModel, text_encoder or folder / "text_encoder"),
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            scheduler_config=read_scheduler_config(folder),
            device=device,
            dtype=dtype,
        )

    @property
    def tokens(self) -> int:
        """How many tokens a prompt is padded or cut to."""
        return self.tokenizer.model_max_length

    def _tell_of_cut(self, prompts: Sequence[str]) -> None:
        for prompt, ids in zip(prompts, self.tokenizer(list(prompts), verbose=False).input_ids, strict=True):
            if len(ids) > self.tokens and not self._told:
                self._told = True
                what = f"a prompt of {len(ids)} tokens is cut to the {self.tokens} that the text encoder reads"
                print(f"note: {what}, and so is every other that is too long: {prompt!r}", file=sys.stderr)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """(B, tokens, dim) of the last hidden layer; longer prompts are cut, as in the published runs."""
        self._tell_of_cut(prompts)
        ids = self.tokenizer(
            list(prompts), padding="max_length", max_length=self.tokens, truncation=True, return_tensors="pt"
        ).input_ids
        return self.text_encoder(ids.to(self.device))[0].float()

    @torch.no_grad()
    def encode(self, image: Image.Image, noise: torch.Generator | None = None) -> Tensor:
        """RGB -> (C, h, w): the mean of the posterior, or with a CPU generator a sample of it."""
        posterior = self.vae.encode(to_pixels(image).to(self.device, self.dtype)).latent_dist
        latent = posterior.mean.float()
        if noise is not None:
            latent = latent + posterior.std.float() * torch.randn(latent.shape, generator=noise).to(self.device)
        return latent[0] * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """(C, h, w) -> (3, H, W) in [0, 1]; one image at a time, which bounds the memory."""
        pixels = self.vae.decode((latent[None] / self.vae.config.scaling_factor).to(self.dtype)).sample
        return (pixels[0].float() / 2 + 0.5).clamp(0, 1)

    def noise(self, latents: Tensor, timestep: int | Tensor, embeddings: Tensor) -> Tensor:
        """The predicted noise (B, C, h, w) of latents at a timestep, given embeddings (B, tokens, dim)."""
        predicted = self.unet(latents.to(self.dtype), timestep, encoder_hidden_states=embeddings.to(self.dtype))
        return predicted.sample.float()


def to_pixels(image: Image.Image) -> Tensor:
    """RGB -> float32 (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def load_network(kind: Any, folder: Path, **options: Any) -> Any:
    """A network of diffusers or transformers from its folder. Raises ValueError for missing and for foreign weights."""
    safetensors = any(folder.glob("*.safetensors"))
    check_archives(folder)
    network, report = kind.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, use_safetensors=safetensors, **options
    )
    # The libraries would only warn, and leave what is missing random.
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{folder} lacks {len(missing)} of its weights, {missing[0]} first; get its files again")
    if foreign := sorted(report["unexpected_keys"]):
        raise ValueError(
            f"{folder} has {len(foreign)} weights that its configuration has no place for, {foreign[0]} first; get its "
            "files again"
        )
    return network


def read_scheduler_config(folder: Path) -> dict[str, Any]:
    """The noise schedule of a pipeline's folder. Raises ValueError where it is not for predicting the noise."""
    from diffusers import DDIMScheduler

    config = DDIMScheduler.load_config(folder / "scheduler")
    if (kind := config.get("prediction_type", "epsilon")) != "epsilon":
        raise ValueError(f"{folder} predicts {kind!r}; these methods are defined for networks that predict the noise")
    return dict(config)


def answer(levels: Tensor, dtype: str) -> Image.Image | NoAnswer:
    """The image of levels (3, H, W) from 0 to 255, fractions cut off. In half precision the decoder may overflow; as
    whole numbers what is not finite would be black."""
    if not levels.isfinite().all():
        return NoAnswer(f"the image is not finite in {dtype}")
    return Image.fromarray(levels.to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Gaussian noise, float32 (len(seeds), *shape) on the CPU, each row from a generator of its own.

    Drawn here and not by the pipeline, so that it depends on neither dtype nor device.
    """
    rows = [torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows)
