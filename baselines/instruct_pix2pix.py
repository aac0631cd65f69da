"""InstructPix2Pix, MagicBrush, InstructDiffusion: the same architecture, tuned on other edits.

What is fetched are the authors' own checkpoints, since these say which weights they hold: InstructPix2Pix' code, which
is MagicBrush's too, edits with the moving average of the U-Net's weights, and InstructDiffusion's file was converted
from it. Of the ports to diffusers, vinesmsuic/magicbrush-jul7 is not made from the average (its maker has a second one,
magicbrush-ema, that is), and timbrooks/instruct-pix2pix leaves it open.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines.assets import ASSETS, weights_folder
from baselines.method import (
    EditRequest,
    MethodCard,
    MethodContext,
    NoAnswer,
    Requirements,
    in_blocks,
    refuse_miniature,
)
from baselines.stable_diffusion.networks import (
    LDM_SCHEDULE,
    StableDiffusion,
    answer,
    check_dtype,
    read_scheduler_config,
)
from editar.io.assets import Asset, digests, locate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Instructed:
    """One row.

    checkpoint: the authors' file, in LDM's layout. averaged: whether the authors' code takes its UNet from the moving
    average that the file has beside the last step's weights. port: to diffusers, which the user may put in the file's
    place. miniature: the UNet's folder, in it `text_encoder/`; None where the suite has none. steps: of Euler's
    ancestral sampler. by_text, by_image: scales of the guidance. guidance: its formula, a key of `editing.GUIDANCE`.
    """

    card: MethodCard
    checkpoint: Asset
    averaged: bool
    port: Asset
    miniature: Asset | None
    steps: int
    by_text: float
    by_image: float
    guidance: str


class InstructedDiffusion:
    """The method of an `Instructed`. dtype: of all networks; latents, noise and guidance are float32 in any case.

    Raises Unsupported where the suite has no networks for it.
    """

    def __init__(self, context: MethodContext, row: Instructed, dtype: str = "float32") -> None:
        check_dtype(dtype)
        if row.miniature is None:
            refuse_miniature(row.card.published_as, context)
        self.weights = weights_folder(context, row.miniature.name if row.miniature else "")
        self.card = row.card
        self.row, self.suite, self.device, self.dtype = row, context.suite, context.device, dtype
        self.images_at_once = context.images_at_once
        self._model: StableDiffusion | None = None

    def load(self) -> None:
        """Raises ValueError for weights that are missing or too many, and where the UNet sees no image."""
        from baselines.stable_diffusion.ldm import Sizes, read_stable_diffusion
        from editar.io.tensors import map_pickle

        assets = self._assets()
        place, *rest = (asset.find(self.weights) for asset in assets)
        if self.row.checkpoint in assets:
            state, _ = map_pickle(place)
            model = read_stable_diffusion(
                state, Sizes.of(state, place), place, rest[0], self.device, self.dtype, ema=self._uses_average(state)
            )
        else:
            unet, text_encoder = (rest[0], rest[0] / "text_encoder") if rest else (None, None)
            model = StableDiffusion.from_folder(place, self.device, self.dtype, unet=unet, text_encoder=text_encoder)
            place = unet or place / "unet"
        inputs, needed = model.unet.config.in_channels, 2 * model.vae.config.latent_channels
        if inputs != needed:
            raise ValueError(
                f"{place}: its UNet reads {inputs} channels; editing takes {needed}, half of them the image's. Use the "
                "weights that were tuned for editing"
            )
        self._model = model

    @property
    def model(self) -> StableDiffusion:
        assert self._model is not None, "call load() first"
        return self._model

    @in_blocks
    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image | NoAnswer]:
        from baselines.stable_diffusion.editing import embed

        return self.sample(requests, embed(self.model, [each.instruction for each in requests], self.row.guidance))

    def sample(self, requests: Sequence[EditRequest], texts: "Tensor") -> list[Image.Image | NoAnswer]:
        """The edited images, whatever the requests' instructions say. texts: (3B, tokens, dim), what the three
        predictions of `editing.Guidance` read."""
        import torch

        from baselines.stable_diffusion.editing import GUIDANCE, encode, euler_ancestral, sample

        row, model = self.row, self.model
        scheduler = euler_ancestral(model.scheduler_config)
        scheduler.set_timesteps(row.steps, device=model.device)
        # One image at a time goes through the VAE, which bounds the memory.
        images = torch.stack([encode(model, request.image) for request in requests])

        def guide(both: "Tensor", image: "Tensor", third: "Tensor") -> "Tensor":
            return GUIDANCE[row.guidance](both, image, third, row.by_text, row.by_image)

        def predict(noisy: "Tensor", time: "Tensor") -> "Tensor":
            return model.noise(noisy, time, texts)

        generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        noise = torch.stack([torch.randn(images.shape[1:], generator=each) for each in generators])
        latents = sample(predict, scheduler, images, noise, guide, generators)
        return [self._answer(latent) for latent in latents]

    def settings(self) -> dict[str, Any]:
        """Finds the weights, and fetches what is missing of them: they are part of the settings.

        ema: whether the UNet is read from a moving average; None for a port, which does not say what it was made of.
        """
        from baselines.stable_diffusion.editing import euler_ancestral
        from editar.io.tensors import map_pickle

        row, assets = self.row, self._assets()
        place, ema, schedule = assets[0].find(self.weights), None, LDM_SCHEDULE
        if row.checkpoint in assets:
            ema = self._uses_average(map_pickle(place)[0])
        else:
            schedule = read_scheduler_config(place)
        scheduler = euler_ancestral(schedule)
        config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
        return {
            "images_at_once": self.images_at_once,
            "steps": row.steps,
            "guidance": row.guidance,
            "text_guidance": row.by_text,
            "image_guidance": row.by_image,
            "scheduler": {"class": type(scheduler).__name__, **config},
            "dtype": self.dtype,
            "safety_checker": "off",
            "ema": ema,
            "weights": digests(assets, self.weights),
        }

    def requirements(self) -> Requirements:
        """Each step takes the three predictions of `editing.Guidance`."""
        files = locate(self._assets(), self.weights)
        return Requirements(files=files, passes={"UNet": 3 * self.row.steps})

    def _assets(self) -> tuple[Asset, ...]:
        """What the row is made of: the user's checkpoint, else the user's port, else the published checkpoint."""
        row, weights = self.row, self.weights
        if self.suite == "miniature":
            assert row.miniature is not None
            return ASSETS["diffusion-base"], row.miniature
        has_port = weights is not None and (weights / row.port.name).is_dir()
        if has_port and not any(file.comes == "given" and file.path for file in row.checkpoint.locate(weights)):
            return (row.port,)
        return row.checkpoint, ASSETS["clip-tokenizer"]

    def _uses_average(self, state: Mapping[str, Any]) -> bool:
        """Pruned checkpoints may have lost the moving average of the UNet's weights."""
        from baselines.stable_diffusion.ldm import EMA

        return self.row.averaged and any(name.startswith(EMA) for name in state)

    def _answer(self, latent: "Tensor") -> Image.Image | NoAnswer:
        # Clamped pixels would hide latents that have overflowed.
        pixels = self.model.decode(latent) if latent.isfinite().all() else latent
        return answer((pixels * 255).round(), self.dtype)


def _instructed(card: Mapping[str, Any], checkpoint: str, port: str, miniature: str, **options: Any) -> Instructed:
    """A row of instruct_pix2pix.toml, where files are named as in assets.toml."""
    return Instructed(
        card=MethodCard(kind="feed-forward", **card),
        checkpoint=ASSETS[checkpoint],
        port=ASSETS[port],
        miniature=ASSETS[miniature],
        **options,
    )


ROWS = {
    name: _instructed(**row)
    for name, row in tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8")).items()
}
INSTRUCT_PIX2PIX, MAGICBRUSH, INSTRUCT_DIFFUSION = ROWS.values()
# Chosen by benchmarks/miniature/evaluate/instruct.py, on other edits than the tables': at 7.5 the background keeps 4 dB
# less, and fewer instructions are followed.
MINIATURE_INSTRUCT_PIX2PIX = replace(INSTRUCT_PIX2PIX, by_text=3.0)


def instruct_pix2pix(context: MethodContext, dtype: str = "float32") -> InstructedDiffusion:
    row = MINIATURE_INSTRUCT_PIX2PIX if context.suite == "miniature" else INSTRUCT_PIX2PIX
    return InstructedDiffusion(context, row, dtype)


magicbrush = partial(InstructedDiffusion, row=MAGICBRUSH)
instruct_diffusion = partial(InstructedDiffusion, row=INSTRUCT_DIFFUSION)
