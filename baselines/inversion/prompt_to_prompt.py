"""Prompt-to-Prompt (Hertz et al. 2022) on DDIM inversion and on PnP Inversion (Ju et al. 2023), as published on
PIE-Bench ("ddim+p2p", "directinversion+p2p").

A source branch samples the inverted image again with the source prompt, a target branch with the target prompt, side by
side; in the early steps the target branch gets the source's attention, in the guidance's conditional half only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.inversion.attention import Layer, attention_layers, controlled
from baselines.inversion.base import InversionMethod, card
from baselines.inversion.ddim import DiffusionSettings, sample
from baselines.inversion.words import find_word, read_prompt, refinement, replacement
from baselines.method import EditRequest

CONDITIONAL, TARGET = 1, 1  # in the (2, 2, B) batch of the UNet


@dataclass(frozen=True, kw_only=True)
class PromptToPromptSettings(DiffusionSettings):
    """The published ones.

    cross_replace, self_replace: the share of the steps in which attention is replaced. mapping: "refine" for prompts of
    any length, "replace" for word by word. Where there are blend words: word_weight multiplies the attention to the
    target word; from blend_start of the steps on, latents outside of where the two words get more than blend_threshold
    of their greatest attention are those of the source.
    """

    cross_replace: float = 0.4
    self_replace: float = 0.6
    mapping: Literal["refine", "replace"] = "refine"
    word_weight: float = 2.0
    blend_threshold: float = 0.3
    blend_start: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cross_replace", "self_replace", "blend_threshold", "blend_start"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        if self.mapping not in ("refine", "replace"):
            raise ValueError(f"mapping is {self.mapping!r}; use refine or replace")


@dataclass(frozen=True, kw_only=True)
class PromptEdit:
    """How target prompts differ from source prompts, of B requests.

    mix (B, tokens, tokens) and keep (B, tokens): see WordMap. weights (B, tokens): factors on the attention to the
    target's tokens. blend (2, B, tokens): 1 at the tokens of the words to blend, in source and target prompt; all 0 for
    a request without.
    """

    mix: Tensor
    keep: Tensor
    weights: Tensor
    blend: Tensor


def read_edits(tokenizer: Any, requests: Sequence[EditRequest], config: PromptToPromptSettings) -> PromptEdit:
    """Raises WordError for a blend word that is not in its prompt."""
    tokens = tokenizer.model_max_length
    align = refinement if config.mapping == "refine" else replacement
    maps, weights, blend = [], torch.ones(len(requests), tokens), torch.zeros(2, len(requests), tokens)
    for number, request in enumerate(requests):
        source = read_prompt(tokenizer, request.source_prompt)
        target = read_prompt(tokenizer, request.target_prompt)
        maps.append(align(source, target, tokens))
        if request.blend_words is not None:
            for branch, (prompt, word) in enumerate(zip((source, target), request.blend_words, strict=True)):
                blend[branch, number, find_word(prompt, word)] = 1
            weights[number, blend[TARGET, number] == 1] = config.word_weight
    mix, keep = (torch.stack([getattr(each, name) for each in maps]) for name in ("mix", "keep"))
    return PromptEdit(mix=mix, keep=keep, weights=weights, blend=blend)


class PromptToPromptControl:
    """Replaces attention, step after step, and blends the latents. step: the number of the current one."""

    def __init__(
        self, edits: PromptEdit, layers: Mapping[str, Layer], config: PromptToPromptSettings, side: int, device: str
    ) -> None:
        self.step = 0
        self.cross_steps = int(config.cross_replace * (config.steps + 1))  # the authors count one step more here
        self.self_steps = int(config.self_replace * config.steps)
        self.largest = (side // 2) ** 2  # pixels; the finest maps are the target's own: 64 x 64 of Stable Diffusion 1
        self.mix = edits.mix[:, None].to(device)
        self.keep = edits.keep[:, None, None].to(device)
        self.weights = edits.weights[:, None, None].to(device)
        self.blend = LocalBlend(edits.blend.to(device), layers, config)

    def self_attention(self, layer: Layer, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.step < self.self_steps and query.shape[-2] <= self.largest:
            return _target_as_source(query), _target_as_source(key), value
        return query, key, value

    def cross_attention(self, layer: Layer, weights: Tensor) -> Tensor:
        branches = weights.unflatten(0, (2, 2, -1))
        source, target = branches[CONDITIONAL]
        if self.step < self.cross_steps:
            mixed = source @ self.mix.to(source) + target * self.keep.to(source)
            branches = branches.clone()
            branches[CONDITIONAL, TARGET] = mixed * self.weights.to(source)
        self.blend.collect(layer, branches[CONDITIONAL])
        return branches.flatten(0, 2)

    def after_step(self, latents: Tensor) -> Tensor:
        """Latents (2B, C, h, w) to go on with."""
        blended = self.blend(self.step, latents)
        self.step += 1
        return blended


def _target_as_source(states: Tensor) -> Tensor:
    branches = states.unflatten(0, (2, 2, -1)).clone()
    branches[CONDITIONAL, TARGET] = branches[CONDITIONAL, 0]
    return branches.flatten(0, 2)


class LocalBlend:
    """Keeps the target's latents to where either prompt's blend words get attention.

    It looks at the coarsest cross-attention outside of the middle (16 x 16 for Stable Diffusion 1 at 512 pixels), added
    up over heads, layers and all steps so far.
    """

    def __init__(self, words: Tensor, layers: Mapping[str, Layer], config: PromptToPromptSettings) -> None:
        self.words = words
        self.active = words.any(dim=(0, 2))[:, None, None, None]
        self.threshold, self.first_step = config.blend_threshold, int(config.blend_start * config.steps)
        down = max(layer.block for layer in layers.values() if layer.place == "down")
        up = min(layer.block for layer in layers.values() if layer.place == "up")
        self.watched = {("down", down), ("up", up)}
        self.attention: Tensor | float = 0.0

    def collect(self, layer: Layer, weights: Tensor) -> None:
        """weights: (2, B, heads, pixels, tokens) of a cross-attention layer, as they are used."""
        if (layer.place, layer.block) in self.watched:
            self.attention = self.attention + torch.einsum("sbhpt,sbt->sbp", weights.float(), self.words)

    def __call__(self, step: int, latents: Tensor) -> Tensor:
        if step < self.first_step or not self.active.any():
            return latents
        assert isinstance(self.attention, Tensor)
        side = round(self.attention.shape[-1] ** 0.5)
        attention = F.max_pool2d(self.attention.unflatten(-1, (side, side)), 3, stride=1, padding=1)
        attention = F.interpolate(attention, latents.shape[-2:])  # (2, B, h, w), nearest
        inside = (attention / attention.amax((2, 3), keepdim=True) > self.threshold).any(0)[:, None]
        source, target = latents.chunk(2)
        return torch.cat((source, torch.where(inside | ~self.active, target, source)))


class PromptToPrompt(InversionMethod):
    card = card("Prompt-to-Prompt", "arXiv 2208.01626")

    config: PromptToPromptSettings
    published = PromptToPromptSettings()

    @torch.no_grad()
    def latents(self, requests: Sequence[EditRequest]) -> Tensor:
        edits = read_edits(self.model.tokenizer, requests, self.config)
        trajectory = self.trajectories(requests)
        unconditional = self.unconditional(requests, trajectory)
        prompts = [request.source_prompt for request in requests] + [request.target_prompt for request in requests]
        control = PromptToPromptControl(
            edits, attention_layers(self.model.unet), self.config, trajectory.shape[-1], self.device
        )

        def after_step(step: int, latents: Tensor) -> Tensor:
            return control.after_step(self.correct(step, latents, trajectory))

        with controlled(self.model.unet, control):
            final = sample(
                self.model, self.schedule, torch.cat((trajectory[-1], trajectory[-1])),
                (torch.cat((each, each)) for each in unconditional), self.model.embed(prompts), self.config.guidance,
                after_step,
            )  # fmt: skip
        return final.unflatten(0, (2, -1))

    def unconditional(self, requests: Sequence[EditRequest], trajectory: Tensor) -> Sequence[Tensor]:
        """The embeddings (B, tokens, dim) that stand for no prompt, for each step."""
        return [self.model.embed([""]).expand(len(requests), -1, -1)] * self.config.steps

    def correct(self, step: int, latents: Tensor, trajectory: Tensor) -> Tensor:
        """The latents (2B, C, h, w) after a step, before they are blended; trajectory: see `trajectories`."""
        return latents


class PnPInversion(PromptToPrompt):
    """After every step the source branch is put back on the inversion's trajectory, so that in the end it is the
    image's own latents; the target branch only gets the source's attention. The published code (Direct Inversion) adds
    the difference to the trajectory that it measured in a pass of its own, which is the same."""

    card = card("PnP Inversion", "arXiv 2310.01506")

    def correct(self, step: int, latents: Tensor, trajectory: Tensor) -> Tensor:
        return torch.cat((trajectory[-2 - step], latents.chunk(2)[1]))
