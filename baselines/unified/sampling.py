"""Images from Stable Diffusion under a control: DDIM as in the samplers that the authors published.

Both are CompVis' `DDIMSampler`: time steps 1, 21 .. 981 for 50 of them, in descending order, and for the step that
leads to the image the alpha of time step 0.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from baselines.method import NoAnswer, TranslateRequest
from baselines.stable_diffusion.networks import LDM_SCHEDULE, StableDiffusion, answer, noise
from baselines.unified.settings import SamplerSettings

PIXELS = 8  # along one side, for each of the latents'
# From latents (2B, 4, h, w), time step () and texts (2B, L, C) to what is added to the UNet's twelve skip connections
# and to its middle. The first half of each batch has the negative prompts, the second the captions.
Control = Callable[[Tensor, Tensor, Tensor], tuple[Sequence[Tensor], Tensor]]


def hints(requests: Sequence[TranslateRequest]) -> Tensor:
    """(B, 3, S, S), RGB in [0, 1]."""
    maps = np.stack([np.asarray(request.condition.convert("RGB"), dtype=np.float32) for request in requests])
    return torch.from_numpy(maps / 255).permute(0, 3, 1, 2)


def guided_text(model: StableDiffusion, requests: Sequence[TranslateRequest], settings: SamplerSettings) -> Tensor:
    """(2B, 77, C): the negative prompt for each, then the prompts."""
    prompts = model.embed([settings.prompt(request.caption) for request in requests])
    return torch.cat([model.embed([settings.negative_prompt]).expand_as(prompts), prompts])


def generate(
    model: StableDiffusion,
    control: Control,
    text: Tensor,
    requests: Sequence[TranslateRequest],
    settings: SamplerSettings,
) -> list[Image.Image | NoAnswer]:
    """One image for each request, of its condition's size. text: (2B, L, C), as of `guided_text`."""

    def predict(latents: Tensor, time: Tensor) -> Tensor:
        down, middle = control(latents, time, text)
        return model.unet(
            latents,
            time,
            encoder_hidden_states=text,
            down_block_additional_residuals=tuple(down),
            mid_block_additional_residual=middle,
        ).sample

    width, height = requests[0].condition.size
    start = noise([request.seed for request in requests], (4, height // PIXELS, width // PIXELS))
    return decode(model, sample(predict, start.to(model.device), settings))


def decode(model: StableDiffusion, latents: Tensor) -> list[Image.Image | NoAnswer]:
    """Latents (B, 4, S/8, S/8) to RGB images of S x S; both authors' scripts cut fractions off, not round."""
    pixels = model.vae.decode(latents / model.vae.config.scaling_factor).sample
    return [answer(each, "float32") for each in (pixels * 127.5 + 127.5).clamp(0, 255)]


def sample(predict: Callable[[Tensor, Tensor], Tensor], start: Tensor, settings: SamplerSettings) -> Tensor:
    """Latents like `start`, which is noise (B, ...). predict: from both halves of the guidance (2B, ...) and a step
    to noise."""
    scheduler = ddim(settings.steps)
    latents = start
    for time in scheduler.timesteps:
        negative, positive = predict(torch.cat([latents, latents]), time.to(start.device)).chunk(2)
        guided = negative + settings.guidance * (positive - negative)
        latents = scheduler.step(guided, time, latents).prev_sample
    return latents


def ddim(steps: int) -> DDIMScheduler:
    scheduler = DDIMScheduler(
        **LDM_SCHEDULE,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(steps)
    return scheduler
