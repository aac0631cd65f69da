"""SEED-X's de-tokenizer: SDXL with a UNet that reads the latents of the image to edit beside the noisy ones, and the
features of an image instead of a text.

The loop is that of `editing`, which keeps the latents in float32, instead of the one of diffusers'
StableDiffusionXLInstructPix2PixPipeline, whose images are the same in float32.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

from baselines.seed_x.prompt_resampler import PromptResampler, build_prompt_resampler
from baselines.stable_diffusion.editing import GUIDANCE, sample
from baselines.stable_diffusion.ldm import empty
from baselines.stable_diffusion.networks import load_network, read_scheduler_config, to_pixels
from editar.io.tensors import CheckpointError, fill, map_pickle

GUIDED_AS = "instruct-pix2pix"
UNET, RESAMPLER = "unet.", "resampler."


class DeTokenizer(nn.Module):
    """resampler, unet: of one dtype. vae: in float32, since SDXL's overflows in half precision."""

    def __init__(
        self,
        *,
        resampler: PromptResampler,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler_config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.resampler, self.unet, self.vae, self.scheduler_config = resampler, unet, vae, scheduler_config

    @property
    def side(self) -> int:
        """Of the images, in pixels."""
        return self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.inference_mode()
    def draw(
        self,
        seen: Tensor,
        features: Tensor,
        null: Tensor,
        noise: Tensor,
        *,
        steps: int,
        by_text: float,
        by_image: float,
    ) -> Tensor:
        """Edited latents (B, C, h, w). seen: of `encode`. features, null: (B, tokens, inputs), what to draw and what to
        lead away from. noise: (B, C, h, w). steps: of Euler's sampler. by_text, by_image: scales of the guidance.
        """

        def guide(both: Tensor, image: Tensor, neither: Tensor) -> Tensor:
            return GUIDANCE[GUIDED_AS](both, image, neither, by_text, by_image)

        prompts, pooled = self.resampler(torch.cat([features, null, null]))
        scheduler = EulerDiscreteScheduler.from_config(self.scheduler_config)
        scheduler.set_timesteps(steps, device=self.unet.device)
        return sample(partial(self._predict, prompts, pooled), scheduler, seen, noise, guide)

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> Tensor:
        """(1, C, h, w) of an RGB image of any size, which is squashed to `side`: the posterior's mode. The UNet was
        trained with this neither scaled as latents are nor more precise than its own dtype."""
        square = image.resize((self.side, self.side), Image.Resampling.BICUBIC)
        pixels = to_pixels(square).to(self.unet.device, self.unet.dtype).float()
        return self.vae.encode(pixels).latent_dist.mode().to(self.unet.dtype).float()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, side, side) in [0, 1]."""
        pixels = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (pixels / 2 + 0.5).clamp(0, 1)

    def _predict(self, prompts: Tensor, pooled: Tensor, latents: Tensor, time: Tensor) -> Tensor:
        size = (self.side, self.side)
        times = torch.tensor([(*size, 0, 0, *size)] * len(latents), device=self.unet.device, dtype=self.unet.dtype)
        predicted = self.unet(
            latents.to(self.unet.dtype),
            time,
            encoder_hidden_states=prompts,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": times},
        )
        return predicted.sample.float()


def read_de_tokenizer(second_stage: Path, sdxl: Path, *, heads: int, dtype: torch.dtype, device: str) -> DeTokenizer:
    """second_stage: the published file, with the UNet and the resampler. sdxl: Stable Diffusion XL's folder, of which
    its UNet's weights are not read. heads: of the resampler's attention.

    Raises CheckpointError naming every missing, unexpected and misshapen tensor, and ValueError where the VAE lacks
    some.
    """
    config = {**UNet2DConditionModel.load_config(sdxl / "unet"), "in_channels": 8}
    unet = empty(lambda: UNet2DConditionModel.from_config(config))
    state, _ = map_pickle(second_stage)
    _check_parts(second_stage, set(state), {UNET + name for name in unet.state_dict()})
    vae = load_network(AutoencoderKL, sdxl / "vae", dtype=torch.float32, low_cpu_mem_usage=False)
    return DeTokenizer(
        resampler=_read_resampler(second_stage, heads, dtype, device),
        unet=fill(lambda: unet, partial(_part, second_stage, UNET), second_stage, dtype=dtype, device=device),
        vae=nn.Module.to(vae, device),
        scheduler_config=read_scheduler_config(sdxl),
    )


def _read_resampler(path: Path, heads: int, dtype: torch.dtype, device: str) -> PromptResampler:
    mapped = partial(_part, path, RESAMPLER)
    try:
        return fill(lambda: build_prompt_resampler(mapped(), heads), mapped, path, dtype=dtype, device=device)
    except KeyError as error:
        raise CheckpointError(f"{path}: no de-tokenizer of SEED-X, {RESAMPLER}{error.args[0]} is missing") from error


def _part(path: Path, prefix: str) -> dict[str, Tensor]:
    state, _ = map_pickle(path)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _check_parts(path: Path, names: set[str], unet: set[str]) -> None:
    """The authors' code would leave SDXL's own weights where the file has none, and say nothing."""
    if absent := sorted(unet - names):
        raise CheckpointError(
            f"{path} is incomplete: it lacks {len(absent)} of the {len(unet)} tensors of the UNet, {absent[0]} first. "
            "Weights of another UNet are not put in their place; get the whole file"
        )
    if foreign := sorted(name for name in names if not name.startswith((UNET, RESAMPLER))):
        raise CheckpointError(
            f"{path} has {len(foreign)} tensors that are no part of the de-tokenizer, {foreign[0]} first"
        )
