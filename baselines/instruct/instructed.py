"""The rows that edit by an instruction with Stable Diffusion; they differ in data alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines.diffusion import DTYPES
from baselines.instruct.files import Checkpoint, Folders, Published, assets, find_networks, weights_folder
from baselines.method import EditRequest, MethodCard, MethodContext, NoAnswer, Requirements
from editar.io.assets import Asset, digests, locate

if TYPE_CHECKING:
    from torch import Tensor

    from baselines.stable_diffusion.networks import StableDiffusion


@dataclass(frozen=True, kw_only=True)
class Instructed:
    """One row. steps: of Euler's ancestral sampler. by_text, by_image: scales of the guidance. guidance: its formula, a
    key of `sampling.GUIDANCE`."""

    card: MethodCard
    published: Published
    steps: int
    by_text: float
    by_image: float
    guidance: str


class InstructedDiffusion:
    """The method of an `Instructed`. dtype: of all networks; latents, noise and guidance are float32 in any case.

    Raises Unsupported where the suite has no networks for it.
    """

    def __init__(self, context: MethodContext, row: Instructed, dtype: str = "float32") -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
        self.weights = weights_folder(row.card.published_as, row.published, context)
        self.card = row.card
        self.row, self.suite, self.device, self.dtype = row, context.suite, context.device, dtype
        self._model: StableDiffusion | None = None

    def load(self) -> None:
        from baselines.instruct.networks import read

        self._model = read(self._find(), self.row.published.averaged, self.device, self.dtype)

    @property
    def model(self) -> "StableDiffusion":
        assert self._model is not None, "call load() first"
        return self._model

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image | NoAnswer]:
        from baselines.instruct.sampling import embed

        return self.sample(requests, embed(self.model, [each.instruction for each in requests], self.row.guidance))

    def sample(self, requests: Sequence[EditRequest], texts: "Tensor") -> list[Image.Image | NoAnswer]:
        """The edited images, whatever the requests' instructions say. texts: (3B, tokens, dim), what the three
        predictions of `sampling.Guidance` read."""
        import torch

        from baselines.instruct.sampling import GUIDANCE, encode, euler_ancestral, sample

        row, model = self.row, self.model
        scheduler = euler_ancestral(model.scheduler_config)
        scheduler.set_timesteps(row.steps, device=model.device)
        # One image at a time goes through the VAE, which bounds the memory.
        images = torch.stack([encode(model, request.image) for request in requests])

        def guide(both: "Tensor", image: "Tensor", third: "Tensor") -> "Tensor":
            return GUIDANCE[row.guidance](both, image, third, row.by_text, row.by_image)

        latents = sample(model, scheduler, images, texts, [request.seed for request in requests], guide)
        return [self._answer(latent) for latent in latents]

    def settings(self) -> dict[str, Any]:
        """Finds the weights, and fetches what is missing of them: they are part of the settings."""
        from baselines.instruct.networks import scheduler_config, uses_average
        from baselines.instruct.sampling import euler_ancestral

        row, found = self.row, self._find()
        scheduler = euler_ancestral(scheduler_config(found))
        config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
        return {
            "steps": row.steps,
            "guidance": row.guidance,
            "text_guidance": row.by_text,
            "image_guidance": row.by_image,
            "scheduler": {"class": type(scheduler).__name__, **config},
            "dtype": self.dtype,
            "safety_checker": "off",
            "ema": uses_average(found, row.published.averaged),
            "weights": digests(self._assets(), self.weights),
        }

    def requirements(self) -> Requirements:
        """Each step takes the three predictions of `sampling.Guidance`."""
        files = locate(self._assets(), self.weights)
        return Requirements(files=files, passes={"UNet": 3 * self.row.steps})

    def _assets(self) -> tuple[Asset, ...]:
        return assets(self.row.published, self.suite, self.weights)

    def _find(self) -> Checkpoint | Folders:
        return find_networks(self.row.published, self.suite, self.weights)

    def _answer(self, latent: "Tensor") -> Image.Image | NoAnswer:
        pixels = self.model.decode(latent)
        # Clamped pixels hide what has overflowed in half precision; rounded, the rest would be black.
        if not (latent.isfinite().all() and pixels.isfinite().all()):
            return NoAnswer(f"the image is not finite in {self.dtype}")
        return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).cpu().numpy())
