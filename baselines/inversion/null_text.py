"""Null-text Inversion (Mokady et al. 2023) with Prompt-to-Prompt ("null-text-inversion+p2p").

For each step the embedding that stands for no prompt is optimised, so that guided sampling with the source prompt stays
on the inversion's trajectory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.inversion.base import card
from baselines.inversion.prompt_to_prompt import PromptToPrompt, PromptToPromptSettings
from baselines.method import EditRequest


@dataclass(frozen=True, kw_only=True)
class NullTextSettings(PromptToPromptSettings):
    """The published ones. Adam takes inner_steps in step i at most, with learning_rate (1 - i / 100), and ends them
    when the mean squared error is below tolerance + i tolerance_growth.

    at_once: images that are optimised side by side. Their gradients' memory grows with it; each image still ends its
    steps when it is near enough itself.
    """

    inner_steps: int = 10
    learning_rate: float = 1e-2
    tolerance: float = 1e-5
    tolerance_growth: float = 2e-5
    at_once: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype != "float32":
            raise ValueError(f"dtype is {self.dtype!r}; the gradients of null-text optimisation need float32")
        if not 0 < self.steps <= 100:
            raise ValueError(f"steps is {self.steps}; the learning rate falls to 0 within 100")
        if self.at_once < 1:
            raise ValueError(f"at_once is {self.at_once}; it must be at least 1")


class NullTextInversion(PromptToPrompt):
    card = card("Null-text Inversion", "arXiv 2211.09794")

    config: NullTextSettings
    published = NullTextSettings()
    # The miniature's networks are so small that one image alone would leave the processor waiting.
    miniature = NullTextSettings(at_once=8)

    @property
    def passes(self) -> Mapping[str, int]:
        steps = self.config.steps
        # Each step takes the noise with the prompt once, and is made with the embedding that was found.
        return {"UNet": 7 * steps, "UNet with gradient, at most": steps * self.config.inner_steps}

    def unconditional(self, requests: Sequence[EditRequest], trajectory: Tensor) -> Sequence[Tensor]:
        prompts = [request.source_prompt for request in requests]
        size = self.config.at_once
        found = [
            self.optimise(trajectory[:, start : start + size], prompts[start : start + size])
            for start in range(0, len(prompts), size)
        ]
        return torch.cat(found, dim=1).unbind(0)

    def optimise(self, trajectory: Tensor, prompts: Sequence[str]) -> Tensor:
        """The embeddings (steps, B, tokens, dim) for B images; trajectory (steps + 1, B, C, h, w), clean to noisy."""
        prompted, embedding = self.model.embed(prompts), self.model.embed([""] * len(prompts))
        latents, embeddings = trajectory[-1], []
        for step, timestep in enumerate(self.schedule.timesteps):
            with torch.no_grad():
                given = self.model.noise(latents, timestep, prompted)
            embedding = self._fit(embedding, latents, given, trajectory[-2 - step], step)
            with torch.no_grad():
                latents = self._step(embedding, latents, given, timestep)
            embeddings.append(embedding)
        return torch.stack(embeddings)

    @torch.enable_grad()
    def _fit(self, start: Tensor, latents: Tensor, given: Tensor, wanted: Tensor, step: int) -> Tensor:
        config = self.config
        embedding = start.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([embedding], lr=config.learning_rate * (1 - step / 100))
        fitted, unfinished = start.clone(), torch.arange(len(start), device=start.device)
        for _ in range(config.inner_steps):
            reached = self._step(embedding, latents, given, self.schedule.timesteps[step])
            distances = (reached - wanted).square().mean((1, 2, 3))
            optimizer.zero_grad()
            distances.sum().backward()  # Adam works number by number: no image sees the others
            optimizer.step()
            fitted[unfinished] = embedding.detach()[unfinished]
            near = distances[unfinished] < config.tolerance + step * config.tolerance_growth
            unfinished = unfinished[~near]  # as published, after the step that began near enough
            if not len(unfinished):
                break
        return fitted

    def _step(self, embedding: Tensor, latents: Tensor, given: Tensor, timestep: int) -> Tensor:
        """The guided step, with the conditional noise known."""
        without = self.model.noise(latents, timestep, embedding)
        noise = without + self.config.guidance * (given - without)
        return self.schedule.move(latents, noise, timestep, timestep - self.schedule.stride)
