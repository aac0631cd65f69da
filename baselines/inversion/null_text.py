"""Null-text Inversion (Mokady et al. 2023) with Prompt-to-Prompt ("null-text-inversion+p2p").

For each step the embedding that stands for no prompt is optimised, so that guided sampling with the source prompt stays
on the inversion's trajectory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.inversion.prompt_to_prompt import PromptToPrompt, PromptToPromptSettings
from baselines.method import EditRequest, MethodContext


@dataclass(frozen=True, kw_only=True)
class NullTextSettings(PromptToPromptSettings):
    """The published ones. Adam takes inner_steps in step i at most, with learning_rate (1 - i / 100), and ends them
    when the mean squared error is below tolerance + i tolerance_growth."""

    inner_steps: int = 10
    learning_rate: float = 1e-2
    tolerance: float = 1e-5
    tolerance_growth: float = 2e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype != "float32":
            raise ValueError(f"dtype is {self.dtype!r}; the gradients of null-text optimisation need float32")
        if not 0 < self.steps <= 100:
            raise ValueError(f"steps is {self.steps}; the learning rate falls to 0 within 100")


@dataclass(frozen=True, kw_only=True)
class NullText:
    """embeddings: (steps, tokens, dim). errors: (steps,), the mean squared distance of the reconstruction's latents
    from the trajectory after each step."""

    embeddings: Tensor
    errors: Tensor


class NullTextInversion(PromptToPrompt):
    config: NullTextSettings

    def __init__(self, context: MethodContext, config: NullTextSettings | None = None) -> None:
        super().__init__(context, config or NullTextSettings())

    @property
    def passes(self) -> Mapping[str, int]:
        steps = self.config.steps
        # Each step takes the noise with the prompt once, and is made with the embedding that was found.
        return {"UNet": 7 * steps, "UNet with gradient, at most": steps * self.config.inner_steps}

    def unconditional(self, requests: Sequence[EditRequest], trajectory: Tensor) -> Sequence[Tensor]:
        # One image at a time: each ends its steps when it is near enough.
        found = [self.optimise(trajectory[:, [b]], request.source_prompt) for b, request in enumerate(requests)]
        return torch.stack([each.embeddings for each in found], dim=1).unbind(0)

    def optimise(self, trajectory: Tensor, prompt: str) -> NullText:
        """For one image: trajectory (steps + 1, 1, C, h, w), clean to noisy."""
        prompted, embedding = self.model.embed([prompt]), self.model.embed([""])
        latents, embeddings, errors = trajectory[-1], [], []
        for step, timestep in enumerate(self.schedule.timesteps):
            wanted = trajectory[-2 - step]
            with torch.no_grad():
                given = self.model.noise(latents, timestep, prompted)
            embedding = self._fit(embedding, latents, given, wanted, step)
            with torch.no_grad():
                latents = self._step(embedding, latents, given, timestep)
            embeddings.append(embedding[0])
            errors.append(F.mse_loss(latents, wanted))
        return NullText(embeddings=torch.stack(embeddings), errors=torch.stack(errors))

    @torch.enable_grad()
    def _fit(self, embedding: Tensor, latents: Tensor, given: Tensor, wanted: Tensor, step: int) -> Tensor:
        config = self.config
        embedding = embedding.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([embedding], lr=config.learning_rate * (1 - step / 100))
        for _ in range(config.inner_steps):
            reached = self._step(embedding, latents, given, self.schedule.timesteps[step])
            loss = F.mse_loss(reached, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if loss.item() < config.tolerance + step * config.tolerance_growth:  # as published, before the last step
                break
        return embedding.detach()

    def _step(self, embedding: Tensor, latents: Tensor, given: Tensor, timestep: int) -> Tensor:
        """The guided step, with the conditional noise known."""
        without = self.model.noise(latents, timestep, embedding)
        noise = without + self.config.guidance * (given - without)
        return self.schedule.move(latents, noise, timestep, timestep - self.schedule.stride)
