"""UniControl (salesforce/UniControl) and Uni-ControlNet (ShihaoZhaoZSH/Uni-ControlNet): Stable Diffusion 1.5 and one
control branch for all kinds of condition maps, sampled as by the authors' `inference_demo.py` and `src/test/test.py`.

UniControl's task embedding is the text encoder's state at the first token of the instruction. The encoder is causal, so
that this is the start token's, whatever the instruction says: at run time tasks differ by their experts alone.

Uni-ControlNet has a global adapter for an example image besides. Nobody gives one here, and then the authors' script
gives the adapter zeros, of which its biases make four words that are not zero: they follow both prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines.assets import ASSETS
from baselines.method import (
    MethodCard,
    MethodContext,
    NoAnswer,
    Requirements,
    TranslateRequest,
    in_blocks,
    refuse_miniature,
)
from baselines.unified.settings import SamplerSettings
from editar.io.assets import Asset, digests, locate

if TYPE_CHECKING:
    from torch import Tensor

    from baselines.stable_diffusion.ldm import Sizes
    from baselines.stable_diffusion.networks import StableDiffusion
    from baselines.unified.sampling import Control

    # From Stable Diffusion, requests and the texts (2B, L, C) of `guided_text` to the control, and to the texts that
    # the networks are to read.
    Controls = Callable[[StableDiffusion, Sequence[TranslateRequest], Tensor], tuple[Control, Tensor]]

State = Mapping[str, "Tensor"]
TOKENIZER = ASSETS["clip-tokenizer"]


@dataclass(frozen=True, kw_only=True)
class Unified:
    """One row.

    name: in messages. read: from a checkpoint (state dict, sizes, its path for messages, device) to what controls the
    sampling. facts: further settings.
    """

    name: str
    card: MethodCard
    checkpoint: Asset
    sampler: SamplerSettings
    read: Callable[[State, "Sizes", Path, str], "Controls"]
    facts: Mapping[str, Any]

    @property
    def assets(self) -> tuple[Asset, ...]:
        return self.checkpoint, TOKENIZER


class UnifiedControl:
    """The method of a `Unified`. Raises Unsupported in the miniature."""

    def __init__(self, context: MethodContext, row: Unified) -> None:
        refuse_miniature(row.name, context)
        self.weights, self.device = context.weights, context.device
        self.images_at_once = context.images_at_once
        self.card, self.row = row.card, row
        self._networks: tuple[StableDiffusion, Controls] | None = None

    def load(self) -> None:
        from baselines.stable_diffusion.ldm import Sizes, read_stable_diffusion
        from editar.io.tensors import map_pickle

        path, tokenizer = (asset.find(self.weights) for asset in self.row.assets)
        state, _ = map_pickle(path)
        sizes = Sizes.of(state, path)
        controls = self.row.read(state, sizes, path, self.device)
        self._networks = read_stable_diffusion(state, sizes, path, tokenizer, self.device), controls

    @in_blocks
    def translate(self, requests: Sequence[TranslateRequest]) -> list[Image.Image | NoAnswer]:
        """Raises ValueError where UniControl's tasks are mixed."""
        import torch

        from baselines.unified.sampling import generate, guided_text

        assert self._networks is not None, "call load() first"
        model, controls = self._networks
        with torch.inference_mode():
            text = guided_text(model, requests, self.row.sampler)
            control, text = controls(model, requests, text)
            return generate(model, control, text, requests, self.row.sampler)

    def settings(self) -> dict[str, Any]:
        """Finds the weights, and fetches what is missing of them: they are part of the settings."""
        weights = digests(self.row.assets, self.weights)
        sampler = {
            "sampler": "DDIM, eta 0",
            **asdict(self.row.sampler),
            "dtype": "float32",
            "images_at_once": self.images_at_once,
        }
        return {**sampler, **self.row.facts, "weights": weights}

    def requirements(self) -> Requirements:
        """UNet and control are run for both halves of the guidance in each step."""
        passes = dict.fromkeys(("UNet", "control"), 2 * self.row.sampler.steps)
        return Requirements(files=locate(self.row.assets, self.weights), passes=passes)


# Number of UniControl's expert, and instruction.
TASKS = {
    "canny": (1, "canny edge to image"),
    "segmentation": (2, "segmentation map to image"),
    "depth": (3, "depth map to image"),
}
# The first of a map's three channels in Uni-ControlNet's hint.
CHANNELS = {"canny": 0, "depth": 15, "segmentation": 18}


def _unicontrol(state: State, sizes: "Sizes", path: Path, device: str) -> "Controls":
    from baselines.unified.sampling import hints
    from baselines.unified.unicontrol_branch import read_branch

    branch = read_branch(state, sizes, path, device)

    def controls(
        model: "StableDiffusion", requests: Sequence[TranslateRequest], text: "Tensor"
    ) -> "tuple[Control, Tensor]":
        tasks = {request.task for request in requests}
        if len(tasks) != 1:
            raise ValueError(f"the requests are of the tasks {sorted(tasks)}; give those of one task at a time")
        expert, instruction = TASKS[tasks.pop()]
        task = branch.embed_task(model.embed([instruction])[:, 0])
        hint = branch.embed_hint(hints(requests).to(device), expert, task).repeat(2, 1, 1, 1)
        return (lambda latents, time, words: branch(latents, time, words, hint, task)), text

    return controls


def _uni_controlnet(state: State, sizes: "Sizes", path: Path, device: str) -> "Controls":
    import torch

    from baselines.unified.local_adapter import read_adapters

    local, content = read_adapters(state, sizes, path, device)

    def controls(
        model: "StableDiffusion", requests: Sequence[TranslateRequest], text: "Tensor"
    ) -> "tuple[Control, Tensor]":
        features = [each.repeat(2, 1, 1, 1) for each in local.embed_hint(combined_hints(requests).to(device))]
        no_content = content(torch.zeros(len(text), text.shape[-1], device=device))
        text = torch.cat([text, no_content], dim=1)
        return (lambda latents, time, words: local(latents, time, words, features)), text

    return controls


def combined_hints(requests: Sequence[TranslateRequest]) -> "Tensor":
    """(B, 21, S, S) in [0, 1]: each condition map in its kind's channels, zeros in the others."""
    from baselines.unified.local_adapter import HINT_CHANNELS
    from baselines.unified.sampling import hints

    maps = hints(requests)
    combined = maps.new_zeros(len(maps), HINT_CHANNELS, *maps.shape[2:])
    for row, request, condition in zip(combined, requests, maps, strict=True):
        first = CHANNELS[request.task]
        row[first : first + 3] = condition
    return combined


UNICONTROL = Unified(
    name="UniControl",
    card=MethodCard(kind="control", published_as="UniControl", citation="arXiv 2305.11147", licence="Apache-2.0"),
    checkpoint=ASSETS["unicontrol.ckpt"],
    sampler=SamplerSettings(guidance=9.0, negative_prompt=""),
    read=_unicontrol,
    facts={"tasks": {task: {"expert": expert, "instruction": words} for task, (expert, words) in TASKS.items()}},
)
UNI_CONTROLNET = Unified(
    name="Uni-ControlNet",
    card=MethodCard(kind="control", published_as="UniControlNet", citation="arXiv 2305.16322", licence="MIT"),
    checkpoint=ASSETS["uni-controlnet/uni.ckpt"],
    sampler=SamplerSettings(
        guidance=7.5,
        negative_prompt="longbody, lowres, bad anatomy, bad hands, missing fingers, extra digit, fewer digits, "
        "cropped, worst quality, low quality",
    ),
    read=_uni_controlnet,
    facts={"hint_channels": CHANNELS, "global_condition": "zeros"},
)

unicontrol = partial(UnifiedControl, row=UNICONTROL)
uni_controlnet = partial(UnifiedControl, row=UNI_CONTROLNET)
