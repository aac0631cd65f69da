"""An edit as InstructDiffusion's edit_cli.py makes it with k-diffusion, read off both a second time: slow, in float64,
over a checkpoint's own key names."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.baselines.ldm_reference import State, conv, text_encoder, unet, vae_block, vae_decode, vae_middle, vae_norm


def vae_encode(state: State, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, S, S) in [-1, 1] to the posterior's mean (B, 4, S/8, S/8), not scaled."""
    p = "first_stage_model."
    e = f"{p}encoder."
    h = conv(state, f"{e}conv_in", pixels)
    for level in range(4):
        for number in range(2):
            h = vae_block(state, f"{e}down.{level}.block.{number}", h)
        if level < 3:  # padded on the far sides alone
            name = f"{e}down.{level}.downsample.conv"
            h = F.conv2d(F.pad(h, (0, 1, 0, 1)), state[f"{name}.weight"], state[f"{name}.bias"], stride=2)
    h = vae_middle(state, e, h)
    moments = conv(state, f"{p}quant_conv", conv(state, f"{e}conv_out", F.silu(vae_norm(state, f"{e}norm_out", h))))
    return moments[:, :4]


def noise_levels(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """k-diffusion's times (steps,) and sigmas (steps + 1,), interpolated in their logarithm between the 1000 of the
    training, and 0 at the end."""
    alphas = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    times = np.linspace(999, 0, steps)
    logarithms = np.interp(times, np.arange(1000), np.log(((1 - alphas) / alphas) ** 0.5))
    return times, np.append(np.exp(logarithms), 0.0)


def edit(state: State, tokens: tuple[Tensor, Tensor], pixels: Tensor, noise: Sequence[Tensor]) -> np.ndarray:
    """Levels (B, S, S, 3) before they are rounded, with guidance 5 and 1.25.

    tokens: of the instructions and of no words, (B, 77) each. pixels: (B, 3, S, S) in [-1, 1]. noise: (B, 4, h, w) to
    start from, and for each step.
    """
    words, no_words = (text_encoder(state, each) for each in tokens)
    image = vae_encode(state, pixels)
    times, sigmas = noise_levels(len(noise) - 1)

    def denoised(x: Tensor, step: int, text: Tensor, shown: Tensor) -> Tensor:
        sigma, time = sigmas[step], torch.full((len(x),), times[step])
        seen = torch.cat([x / (sigma**2 + 1) ** 0.5, shown], dim=1)
        nothing = [torch.zeros(())] * 13  # in a control's place
        return x - sigma * unet(state, seen, time, text, nothing)

    x = noise[0].double() * sigmas[0]
    for step, after in enumerate(sigmas[1:]):
        both = denoised(x, step, words, image)
        image_alone = denoised(x, step, no_words, image)
        text_alone = denoised(x, step, words, torch.zeros_like(image))
        guided = (image_alone + text_alone) / 2 + 5.0 * (both - image_alone) + 1.25 * (both - text_alone)
        sigma = sigmas[step]
        up = (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5
        x = x + (x - guided) / sigma * ((after**2 - up**2) ** 0.5 - sigma) + noise[step + 1].double() * up
    levels = vae_decode(state, x) * 127.5 + 127.5
    return levels.clamp(0, 255).permute(0, 2, 3, 1).numpy()
