"""What the inversion methods have in common as methods of the benchmark."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from baselines.assets import ASSETS, weights_folder
from baselines.inversion.ddim import DiffusionSettings, Schedule, invert
from baselines.method import EditRequest, MethodCard, MethodContext, NoAnswer, Requirements, in_blocks
from baselines.stable_diffusion.networks import StableDiffusion, answer
from editar.io.assets import Asset, digests, locate
from editar.io.digests import bytes_digest, is_reusable, replacing_checked


def card(published_as: str, citation: str) -> MethodCard:
    """All run on Stable Diffusion 1.4, whose licence is theirs."""
    return MethodCard(kind="inversion", published_as=published_as, citation=citation, licence="CreativeML OpenRAIL-M")


class InversionMethod(ABC):
    """A method is its card, its settings and `latents`, which does the work. published: the settings without `config`;
    miniature: those in the miniature, where they differ."""

    card: MethodCard
    published: DiffusionSettings
    miniature: DiffusionSettings | None = None

    def __init__(self, context: MethodContext, config: Any = None) -> None:
        self.pipeline = ASSETS["diffusion" if context.suite == "miniature" else "stable-diffusion-v1-4"]
        self.weights = weights_folder(context)
        own = self.miniature if context.suite == "miniature" else None
        self.config = config or own or self.published
        self.device, self.images_at_once = context.device, context.images_at_once
        self._cache = context.cache / "inversions" if context.cache else None
        self._model: StableDiffusion | None = None

    def load(self) -> None:
        folder = self.pipeline.find(self.weights)
        self._digests = self.pipeline.digests(folder)
        self._model = StableDiffusion.from_folder(folder, self.device, self.config.dtype)
        self.schedule = Schedule(self._model.scheduler_config, self.config)

    @property
    def model(self) -> StableDiffusion:
        assert self._model is not None, "call load() first"
        return self._model

    @abstractmethod
    def latents(self, requests: Sequence[EditRequest]) -> Tensor:
        """The final latents (2, B, C, h, w): of the source branch, and of the target branch, the edit."""

    @property
    def assets(self) -> tuple[Asset, ...]:
        return (self.pipeline,)

    @property
    def passes(self) -> Mapping[str, int]:
        """How often the networks are run for one image, see `Requirements`.

        Here: the inversion, then two branches, each with and without its prompt."""
        return {"UNet": 5 * self.config.steps}

    def requirements(self) -> Requirements:
        return Requirements(files=locate(self.assets, self.weights), passes=self.passes)

    @in_blocks
    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image | NoAnswer]:
        with reproducible(self.device):
            decoded = [self.model.decode(latent) for latent in self.latents(requests)[1]]
        return [answer(self.levels(pixels), self.config.dtype) for pixels in decoded]

    @staticmethod
    def levels(pixels: Tensor) -> Tensor:
        """[0, 1] -> [0, 255]. They are then rounded down, as in the published runs."""
        return pixels * 255

    def settings(self) -> dict[str, Any]:
        """Finds the weights, and fetches what is missing of them: they are part of the settings."""
        return {
            **asdict(self.config),
            "images_at_once": self.images_at_once,
            "weights": digests((self.pipeline,), self.weights),
        }

    def trajectories(self, requests: Sequence[EditRequest]) -> Tensor:
        """The inversions with the source prompts (steps + 1, B, C, h, w), from the cache where they are in it."""
        from safetensors.torch import save

        keys = [self._fingerprint(request) for request in requests]
        found = {key: kept for key in keys if (kept := self._cached(key)) is not None}
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in found}
        if missing:
            # As many at a time as ever, however many are in the cache or are asked for twice.
            asked = list(missing.values())
            asked += asked[-1:] * (self.images_at_once - len(asked))
            prompts = self.model.embed([request.source_prompt for request in asked])
            computed = invert(self.model, self.schedule, self.encode(asked), prompts)
            for key, trajectory in zip(missing, computed.unbind(1)[: len(missing)], strict=True):
                found[key] = trajectory
                if self._cache is not None:
                    self._cache.mkdir(parents=True, exist_ok=True)
                    with replacing_checked(self._cache / f"{key}.safetensors") as file:
                        file.write(save({"tensor": trajectory.contiguous().cpu()}))
        return torch.stack([found[key].to(self.device) for key in keys], dim=1)

    def encode(self, requests: Sequence[EditRequest]) -> Tensor:
        """(B, C, h, w), the images' latents; one image at a time, which bounds the memory."""
        return torch.stack([self.model.encode(request.image) for request in requests])

    def _fingerprint(self, request: EditRequest) -> str:
        facts = {
            "what": "DDIM inversion without guidance, version 1",
            "prompt": request.source_prompt,
            "steps": self.config.steps,
            "steps_offset": self.config.steps_offset,
            "dtype": self.config.dtype,
            "device": torch.device(self.device).type,
            "weights": self._digests,
            "packages": {name: version(name) for name in ("diffusers", "torch", "transformers")},
        }
        image = request.image
        described = json.dumps([facts, image.mode, image.size], sort_keys=True)
        return bytes_digest(described.encode() + image.tobytes())

    def _cached(self, key: str) -> Tensor | None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        if self._cache is None or not is_reusable(path := self._cache / f"{key}.safetensors"):
            return None
        try:
            return load(path.read_bytes())["tensor"]
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}); delete it") from error


@contextmanager
def reproducible(device: str) -> Iterator[None]:
    """On a GPU within it: algorithms that give the same numbers each time (the published runs fixed cuDNN's)."""
    if torch.device(device).type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
