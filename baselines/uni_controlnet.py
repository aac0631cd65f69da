"""Uni-ControlNet (ShihaoZhaoZSH/Uni-ControlNet): Stable Diffusion 1.5, a local adapter for all kinds of condition maps
and a global one for an example image.

Sampled as by the authors' `src/test/test.py`. Nobody gives an example image here, and then that script gives the
global adapter zeros, of which its biases make four words that are not zero: they follow both prompts.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines.method import MethodCard, MethodContext, Requirements, TranslateRequest, refuse_miniature
from baselines.stable_diffusion.assets import CLIP_TOKENIZER
from baselines.unified.settings import SamplerSettings
from editar.io.assets import Asset, digests, locate

if TYPE_CHECKING:
    from torch import Tensor

    from baselines.stable_diffusion.networks import StableDiffusion
    from baselines.unified.local_adapter import GlobalAdapter, LocalAdapter

CHECKPOINT = Asset(
    name="uni-controlnet/uni.ckpt",
    repository="shihaozhao/uni-controlnet",
    revision="bf7c447d577e82a15d9f54d9f2db401fa7f82a4e",
    licence="MIT",
    sizes={"uni.ckpt": 6_100_000_000},  # as the hub shows it, rounded
)
ASSETS = (CHECKPOINT, CLIP_TOKENIZER)
SETTINGS = SamplerSettings(
    steps=50,
    guidance=7.5,
    added_prompt="best quality, extremely detailed",
    negative_prompt="longbody, lowres, bad anatomy, bad hands, missing fingers, extra digit, fewer digits, cropped, "
    "worst quality, low quality",
)
# The first of a map's three channels in the hint.
CHANNELS = {"canny": 0, "depth": 15, "segmentation": 18}


class UniControlNet:
    card = MethodCard(kind="control", published_as="UniControlNet", citation="arXiv 2305.16322", licence="MIT")

    def __init__(self, context: MethodContext) -> None:
        refuse_miniature("Uni-ControlNet", context)
        self.weights, self.device = context.weights, context.device
        self._parts: tuple[StableDiffusion, LocalAdapter, GlobalAdapter] | None = None

    def load(self) -> None:
        from baselines.stable_diffusion.ldm import Sizes, read_stable_diffusion
        from baselines.unified.local_adapter import read_adapters
        from editar.io.tensors import map_pickle

        path, tokenizer = CHECKPOINT.find(self.weights), CLIP_TOKENIZER.find(self.weights)
        state, _ = map_pickle(path)
        sizes = Sizes.of(state, path)
        local, content = read_adapters(state, sizes, path, self.device)
        self._parts = read_stable_diffusion(state, sizes, path, tokenizer, self.device), local, content

    def translate(self, requests: Sequence[TranslateRequest]) -> list[Image.Image]:
        import torch

        from baselines.unified.sampling import generate, guided_text

        assert self._parts is not None, "call load() first"
        model, local, content = self._parts
        with torch.inference_mode():
            features = [each.repeat(2, 1, 1, 1) for each in local.embed_hint(combined_hints(requests).to(self.device))]
            text = guided_text(model, requests, SETTINGS)
            no_content = content(torch.zeros(len(text), text.shape[-1], device=self.device))
            return generate(
                model,
                lambda latents, time, words: local(latents, time, words, features),
                torch.cat([text, no_content], dim=1),
                requests,
                SETTINGS,
            )

    def settings(self) -> dict[str, Any]:
        return {
            "sampler": "DDIM, eta 0",
            **asdict(SETTINGS),
            "dtype": "float32",
            "hint_channels": CHANNELS,
            "global_condition": "zeros",
            "weights": digests(ASSETS, self.weights),
        }

    def requirements(self) -> Requirements:
        """UNet and control are run for both halves of the guidance in each step."""
        passes = dict.fromkeys(("UNet", "control"), 2 * SETTINGS.steps)
        return Requirements(files=locate(ASSETS, self.weights), passes=passes)


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
