"""Pix2Pix-Zero (Parmar et al. 2023), as published on PIE-Bench ("ddim+pix2pix-zero").

The image is inverted with its caption, the predicted noise being kept like white noise. It is sampled again twice, side
by side: as it is, and with the difference of the two prompts' embeddings added to the caption's. There the latents are
pulled, each step, to where the cross-attention is that of the former. diffusers' own pipeline is not used because its
inversion goes through other noise levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.inversion.attention import Layer, controlled
from baselines.inversion.base import InversionMethod, card
from baselines.inversion.captions import BLIP, GENERATION, PROMPT, Captioner
from baselines.inversion.ddim import DiffusionSettings
from baselines.method import EditRequest, MethodContext
from editar.io.assets import Asset, digests

COARSEST = 8  # pixels; autocorrelation looks at no smaller noise than that


@dataclass(frozen=True, kw_only=True)
class Pix2PixZeroSettings(DiffusionSettings):
    """The published ones. autocorrelation and divergence weigh the two regularisers of the inversion's noise, which are
    applied `rounds` times, the former by `rolls` steps each. attention_guidance: the step along the gradient of the
    distance between the cross-attentions."""

    autocorrelation: float = 20.0
    divergence: float = 20.0
    rounds: int = 5
    rolls: int = 5
    attention_guidance: float = 0.1


class Pix2PixZero(InversionMethod):
    card = card("Pix2Pix-Zero", "arXiv 2302.03027")

    config: Pix2PixZeroSettings
    published = Pix2PixZeroSettings()
    # The published weights are those of means over 4 x 64 x 64 numbers (autocorrelation: over each 64 x 64). Of so many
    # fewer numbers each would be moved that much further, to infinity even; here each is moved as far as there.
    miniature = Pix2PixZeroSettings(autocorrelation=20.0 / 64, divergence=20.0 / 32)

    def __init__(self, context: MethodContext, config: Pix2PixZeroSettings | None = None) -> None:
        super().__init__(context, config)
        # The miniature has no captioner: the source prompt says what is to be seen.
        self._captions_wanted = context.suite != "miniature"
        self._captioner: Captioner | None = None

    def load(self) -> None:
        super().load()
        if self._captions_wanted:
            self._captioner = Captioner(BLIP.find(self.weights), self.device)

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        caption: dict[str, Any] | str = "the source prompt"
        if self._captions_wanted:
            caption = {"prompt": PROMPT, "generation": GENERATION, "weights": digests((BLIP,), self.weights)}
        return {**settings, "caption": caption}

    @property
    def passes(self) -> Mapping[str, int]:
        """Inversion, source branch and both halves of the edit; both halves once more to pull them."""
        steps = self.config.steps
        captions = {"BLIP's captions": 1} if self._captions_wanted else {}
        return {"UNet": 4 * steps, "UNet with gradient": 2 * steps, **captions}

    @property
    def assets(self) -> tuple[Asset, ...]:
        return (self.pipeline, BLIP) if self._captions_wanted else (self.pipeline,)

    @staticmethod
    def levels(pixels: Tensor) -> Tensor:
        return (pixels * 255).round()

    def latents(self, requests: Sequence[EditRequest]) -> Tensor:
        captions = self.model.embed(self._captions(requests))
        direction = self.model.embed([request.target_prompt for request in requests]) - self.model.embed(
            [request.source_prompt for request in requests]
        )
        generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        source = target = self._invert(requests, captions, generators)
        for timestep in self.schedule.timesteps:
            recorder = CrossAttention()
            with torch.no_grad(), controlled(self.model.unet, recorder):
                noise = self.model.noise(source, timestep, captions)
            # The published run guides with the caption as negative prompt, too: the noise stays as it is.
            source = self.schedule.move(source, noise, timestep, timestep - self.schedule.stride)
            target = self._edited(target, timestep, torch.stack((captions, captions + direction)), recorder.maps)
        return torch.stack((source, target))

    def _captions(self, requests: Sequence[EditRequest]) -> list[str]:
        if self._captioner is None:
            return [request.source_prompt for request in requests]
        return self._captioner([request.image for request in requests])

    @torch.no_grad()
    def _invert(
        self, requests: Sequence[EditRequest], captions: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """Latents (B, C, h, w) at the noisiest level. Unlike `ddim.invert` the noise is predicted at the level that a
        step starts from; the levels lie one timestep below those of sampling, and the last is the noisiest of all."""
        encoded = [
            self.model.encode(request.image, noise=each) for request, each in zip(requests, generators, strict=True)
        ]
        latents = torch.stack(encoded)
        for timestep in reversed(self.schedule.timesteps):
            noise = self.model.noise(latents, timestep, captions)
            noise = torch.stack([self._whitened(*each) for each in zip(noise, generators, strict=True)])
            end = min(timestep - 1 + self.schedule.stride, self.schedule.last)
            latents = self.schedule.move(latents, noise, timestep - 1, end)
        return latents

    @torch.enable_grad()
    def _whitened(self, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Noise (C, h, w) after gradient steps towards no autocorrelation, mean 0 and variance 1."""
        for _ in range(self.config.rounds):
            for _ in range(self.config.rolls):
                noise = noise.detach().requires_grad_(True)
                (slope,) = torch.autograd.grad(autocorrelation(noise, generator), noise)
                noise = noise - self.config.autocorrelation / self.config.rolls * slope
            noise = noise.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(divergence(noise), noise)
            noise = noise - self.config.divergence * slope
        return noise.detach()

    def _edited(self, latents: Tensor, timestep: int, embeddings: Tensor, wanted: Sequence[Tensor]) -> Tensor:
        """A guided step of latents (B, C, h, w); embeddings: (2, B, tokens, dim); wanted: cross-attention weights
        (B, heads, pixels, tokens) of each layer."""
        halves = torch.stack((latents, latents))
        # One image at a time: the gradient needs far more memory than all the rest.
        pulled = [
            self._pulled(halves[:, b], timestep, embeddings[:, b], [each[b] for each in wanted])
            for b in range(len(latents))
        ]
        halves = torch.stack(pulled, dim=1)
        with torch.no_grad():
            noise = self.model.noise(halves.flatten(0, 1), timestep, embeddings.flatten(0, 1))
        without, given = noise.chunk(2)
        noise = without + self.config.guidance * (given - without)
        # As published, the step goes on from the latents that the unconditional half was pulled to.
        return self.schedule.move(halves[0], noise, timestep, timestep - self.schedule.stride)

    @torch.enable_grad()
    def _pulled(self, halves: Tensor, timestep: int, embeddings: Tensor, wanted: Sequence[Tensor]) -> Tensor:
        """Both halves (2, C, h, w) of one image, nearer to the wanted cross-attention."""
        halves = halves.clone().requires_grad_(True)
        recorder = CrossAttention()
        with controlled(self.model.unet, recorder):
            self.model.noise(halves, timestep, embeddings)
        # Summed over pixels and tokens, averaged over the heads of both halves, summed over layers.
        distance = sum(
            ((now.float() - then.float()) ** 2).sum((-2, -1)).mean()
            for now, then in zip(recorder.maps, wanted, strict=True)
        )
        (slope,) = torch.autograd.grad(distance, halves)  # type: ignore[arg-type]
        return (halves - self.config.attention_guidance * slope).detach()


class CrossAttention:
    """Records the weights (batch, heads, pixels, tokens) of each cross-attention layer and changes nothing."""

    def __init__(self) -> None:
        self.maps: list[Tensor] = []

    def self_attention(self, layer: Layer, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return query, key, value

    def cross_attention(self, layer: Layer, weights: Tensor) -> Tensor:
        self.maps.append(weights)
        return weights


def autocorrelation(noise: Tensor, generator: torch.Generator) -> Tensor:
    """The squared correlation of noise (C, h, w) with itself, rolled at random along either side, at all scales.

    As published each channel and scale has its own roll, which may be 0.
    """
    total = noise.new_zeros(())
    for channel in noise:
        plane = channel[None]
        while True:
            roll = int(torch.randint(plane.shape[-1] // 2, (), generator=generator))
            for dim in (-2, -1):
                total = total + (plane * plane.roll(roll, dim)).mean() ** 2
            if plane.shape[-1] <= COARSEST:
                break
            plane = F.avg_pool2d(plane, 2)
    return total


def divergence(noise: Tensor) -> Tensor:
    """From a standard normal distribution, of the mean and variance of all values of `noise` (twice the KL)."""
    mean, variance = noise.mean(), noise.var()
    return variance + mean**2 - 1 - torch.log(variance + 1e-7)
