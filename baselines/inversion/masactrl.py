"""MasaCtrl (Cao et al. 2023) on DDIM inversion ("ddim+masactrl").

The image is inverted with an empty prompt and sampled with an empty and with the target prompt side by side. From a
step and a layer on, self-attention of the target branch looks up the source's keys and values, in both halves of the
guidance, so that new shapes are filled with the source's content.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.inversion.attention import Layer, attention_layers, controlled
from baselines.inversion.base import InversionMethod, card
from baselines.inversion.ddim import DiffusionSettings, invert, sample
from baselines.method import EditRequest


@dataclass(frozen=True, kw_only=True)
class MasaCtrlSettings(DiffusionSettings):
    """first_step: control begins with it, counted from 0. first_layer: where it begins, as a share of the UNet's
    self-attention layers; the published runs begin with layer 10 of 16."""

    first_step: int = 4
    first_layer: float = 10 / 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.first_step <= self.steps:
            raise ValueError(f"first_step is {self.first_step}; it must be from 0 to the {self.steps} steps")
        if not 0 <= self.first_layer <= 1:
            raise ValueError(f"first_layer is {self.first_layer}; it must be from 0 to 1")


class MutualSelfAttention:
    """step: the number of the current one. first_layer: counted from 0, in the order of calls."""

    def __init__(self, first_step: int, first_layer: int) -> None:
        self.step, self.first_step, self.first_layer = 0, first_step, first_layer

    def self_attention(self, layer: Layer, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.step < self.first_step or layer.index < self.first_layer:
            return query, key, value
        return query, _sources(key), _sources(value)

    def cross_attention(self, layer: Layer, weights: Tensor) -> Tensor:
        return weights


def _sources(states: Tensor) -> Tensor:
    """The source branch in place of both; the batch is (half, branch, request)."""
    source = states.unflatten(0, (2, 2, -1))[:, 0]
    return torch.stack((source, source), dim=1).flatten(0, 2)


class MasaCtrl(InversionMethod):
    card = card("MasaCtrl", "arXiv 2304.08465")

    config: MasaCtrlSettings
    published = MasaCtrlSettings()

    @torch.no_grad()
    def latents(self, requests: Sequence[EditRequest]) -> Tensor:
        empty = self.model.embed([""]).expand(len(requests), -1, -1)
        # Guidance would change nothing here: the inversion's prompt is that of the unconditional half.
        noisy = invert(self.model, self.schedule, self.encode(requests), empty)[-1]
        targets = self.model.embed([request.target_prompt for request in requests])
        layers = len(attention_layers(self.model.unet)) // 2
        control = MutualSelfAttention(self.config.first_step, round(self.config.first_layer * layers))

        def after_step(step: int, latents: Tensor) -> Tensor:
            control.step = step + 1
            return latents

        with controlled(self.model.unet, control):
            final = sample(
                self.model, self.schedule, torch.cat((noisy, noisy)), [torch.cat((empty, empty))] * self.config.steps,
                torch.cat((empty, targets)), self.config.guidance, after_step,
            )  # fmt: skip
        return final.unflatten(0, (2, -1))
