"""DDIM (Song et al. 2021) in both directions, as the published runs of the inversion methods use it.

Without noise (eta = 0) a step of equation (12) leads from one noise level to another, up as well as down:

    x' = sqrt(a') (x - sqrt(1 - a) e) / sqrt(a) + sqrt(1 - a') e        a, a': cumulative alphas, e: predicted noise
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from baselines.stable_diffusion.networks import StableDiffusion, check_dtype


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings:
    """What the published runs on Stable Diffusion 1.4 have in common.

    steps_offset: 1, although the scripts do not ask for it: the pipeline's constructor patches the scheduler, so that
    the timesteps go from 981 to 1. dtype: of the networks; latents stay float32.
    """

    steps: int = 50
    guidance: float = 7.5
    steps_offset: int = 1
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be at least 1")
        check_dtype(self.dtype)


class Schedule:
    """timesteps: descending, `stride` apart. A timestep below 0 has the level of timestep 0 (set_alpha_to_one off)."""

    def __init__(self, scheduler_config: dict[str, Any], settings: DiffusionSettings) -> None:
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler.from_config(
            scheduler_config, steps_offset=settings.steps_offset, timestep_spacing="leading"
        )
        self._alphas: list[float] = scheduler.alphas_cumprod.tolist()
        scheduler.set_timesteps(settings.steps)
        self.timesteps: list[int] = scheduler.timesteps.tolist()
        self.stride = len(self._alphas) // settings.steps
        if self.timesteps[0] >= len(self._alphas):
            raise ValueError(
                f"{settings.steps} steps with an offset of {settings.steps_offset} start at timestep "
                f"{self.timesteps[0]}, but the last one is {len(self._alphas) - 1}; take fewer steps"
            )

    @property
    def last(self) -> int:
        """The noisiest timestep that the network was trained for."""
        return len(self._alphas) - 1

    def move(self, latents: Tensor, noise: Tensor, start: int, end: int) -> Tensor:
        """Latents at timestep `start` to those at `end`, by equation (12)."""
        a, b = (self._alphas[max(timestep, 0)] for timestep in (start, end))
        clean = (latents - (1 - a) ** 0.5 * noise) / a**0.5
        return b**0.5 * clean + (1 - b) ** 0.5 * noise


@torch.no_grad()
def invert(model: StableDiffusion, schedule: Schedule, latents: Tensor, embeddings: Tensor) -> Tensor:
    """(B, C, h, w) -> (steps + 1, B, C, h, w), from clean to noisy, without guidance.

    The noise that leads from one level up to the next is predicted at the next one's timestep (the usual inversion
    step, as in Prompt-to-Prompt's code): the latents are not yet as noisy as the network is told.
    """
    trajectory = [latents]
    for timestep in reversed(schedule.timesteps):
        noise = model.noise(trajectory[-1], timestep, embeddings)
        trajectory.append(schedule.move(trajectory[-1], noise, timestep - schedule.stride, timestep))
    return torch.stack(trajectory)


@torch.no_grad()
def sample(
    model: StableDiffusion,
    schedule: Schedule,
    latents: Tensor,
    unconditional: Iterable[Tensor],
    conditional: Tensor,
    guidance: float,
    after_step: Callable[[int, Tensor], Tensor],
) -> Tensor:
    """(B, C, h, w), noisy -> clean, with classifier-free guidance.

    unconditional: embeddings (B, tokens, dim) for each step; conditional: (B, tokens, dim). The networks see both
    halves in one batch, the unconditional one first. after_step: gets the number of the step and its latents, and
    returns those to go on with.
    """
    for step, (timestep, empty) in enumerate(zip(schedule.timesteps, unconditional, strict=True)):
        embeddings = torch.cat((empty, conditional))
        without, given = model.noise(torch.cat((latents, latents)), timestep, embeddings).chunk(2)
        noise = without + guidance * (given - without)
        latents = after_step(step, schedule.move(latents, noise, timestep, timestep - schedule.stride))
    return latents
