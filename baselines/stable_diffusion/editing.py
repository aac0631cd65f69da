"""Edited latents: Euler's steps, ancestral or not, under guidance by the instruction and by the image.

diffusers' StableDiffusionInstructPix2PixPipeline has the same loop, and in float32 gives the same images to the bit. It
is written out here because the pipeline takes no other guidance, rounds latents and noise to the networks' dtype at
every step and puts whole batches through the VAE.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from diffusers import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor

from baselines.stable_diffusion.networks import StableDiffusion

# From the noise predicted with instruction and image, with the image alone, and from a third prediction without the
# image, and from the guidance by the text and by the image, to the noise that is stepped with.
Guidance = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]


def _instruct_pix2pix(both: Tensor, image: Tensor, neither: Tensor, by_text: float, by_image: float) -> Tensor:
    """Brooks et al. 2023 (arXiv:2211.09800), equation 3."""
    return neither + by_text * (both - image) + by_image * (image - neither)


def _instruct_diffusion(both: Tensor, image: Tensor, text: Tensor, by_text: float, by_image: float) -> Tensor:
    """Of the code of Geng et al. 2023 (arXiv:2309.03895), edit_cli.py: no prediction is without both."""
    return 0.5 * (image + text) + by_text * (both - image) + by_image * (both - text)


GUIDANCE: Mapping[str, Guidance] = {
    "instruct-pix2pix": _instruct_pix2pix,
    "instruct-diffusion": _instruct_diffusion,
}
THIRD_HAS_TEXT = frozenset({"instruct-diffusion"})


def euler_ancestral(config: Mapping[str, object]) -> EulerAncestralDiscreteScheduler:
    """config: of the scheduler that a folder comes with, whatever its kind. Its noise schedule counts, its spacing of
    the steps does not: MagicBrush's port has PNDM's "leading", while k-diffusion, which all were published with, spaces
    them evenly from the first to the last step of the training."""
    return EulerAncestralDiscreteScheduler.from_config(dict(config), timestep_spacing="linspace")


@torch.no_grad()
def encode(model: StableDiffusion, image: Image.Image) -> Tensor:
    """RGB -> (C, h, w): the mean of the VAE's posterior, without the factor that scales latents for the diffusion."""
    pixels = VaeImageProcessor(do_resize=False).preprocess(image)  # in [-1, 1]
    return model.vae.encode(pixels.to(model.device, model.dtype)).latent_dist.mode()[0].float()


def embed(model: StableDiffusion, instructions: Sequence[str], guidance: str) -> Tensor:
    """(3B, tokens, dim): what the three predictions read, in the order of `Guidance`."""
    texts = model.embed(instructions)
    empty = model.embed([""]).expand_as(texts)
    return torch.cat([texts, empty, texts if guidance in THIRD_HAS_TEXT else empty])


@torch.no_grad()
def sample(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: EulerAncestralDiscreteScheduler | EulerDiscreteScheduler,
    images: Tensor,
    noise: Tensor,
    guide: Callable[[Tensor, Tensor, Tensor], Tensor],
    generators: list[torch.Generator] | None = None,
) -> Tensor:
    """Latents (B, C, h, w) from those of the images, (B, C, h, w) of `encode`, and as much Gaussian noise.

    predict: the noise (3B, C, h, w) in noisy latents (3B, 2C, h, w) at a time step, the three predictions of
    `Guidance` one after the other; their second half is the image's latents, or zero. scheduler: with its time steps
    set. guide: a `Guidance` whose scales are given. generators: for each image, of the noise that ancestral steps add.
    """
    latents = noise.to(images.device) * scheduler.init_noise_sigma
    seen = torch.cat([images, images, torch.zeros_like(images)])
    for time in scheduler.timesteps:
        noisy = scheduler.scale_model_input(torch.cat([latents] * 3), time)
        both, image, third = predict(torch.cat([noisy, seen], dim=1), time).chunk(3)
        latents = scheduler.step(guide(both, image, third), time, latents, generator=generators).prev_sample
    return latents
