"""Rows that edit nothing and bound the others: the source image as it is, and through the tokenizer or autoencoder of
other rows and back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines import assets
from baselines.editar import TOKENIZER, model_files, weights_folder
from baselines.method import EditRequest, MethodCard, MethodContext, NoAnswer, Requirements
from editar.io.assets import digests, locate
from editar.io.digests import file_digest

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from editar.model.vq import VQModel


class CopySource:
    """The floor for editing, the ceiling for preservation."""

    card = MethodCard(kind="reference", note="nothing edited, the floor for editing and the ceiling for preservation")

    def __init__(self, context: MethodContext) -> None:
        pass

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        return [request.image.copy() for request in requests]

    def settings(self) -> dict[str, Any]:
        return {}

    def requirements(self) -> Requirements:
        return Requirements(note="no network")


class VQReconstruction:
    """The ceiling that the tokenizer sets to preservation."""

    card = MethodCard(kind="reference", note="the ceiling of EditAR's tokenizer", citation="arXiv 2406.06525")

    def __init__(self, context: MethodContext) -> None:
        self.context = context
        self.device = context.device
        self._vq: VQModel | None = None

    def load(self) -> None:
        from editar.model.checkpoint import read_vq

        self._vq = read_vq(weights_folder(self.context)).load(device=self.device)

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        import torch

        from editar.images import to_image, to_tensor

        assert self._vq is not None, "call load() first"
        answers = []
        with torch.no_grad():
            for request in requests:  # one at a time, so that a result does not depend on its batch
                image = to_tensor(request.image, request.image.width)[None].to(self.device)
                answers.append(to_image(self._vq.decode(self._vq.encode(image))[0]))
        return answers

    def settings(self) -> dict[str, Any]:
        from editar.model.checkpoint import read_vq

        path = read_vq(weights_folder(self.context)).path
        return {"weights": {path.name: file_digest(path)}}

    def requirements(self) -> Requirements:
        """The tokenizer alone is read."""
        from editar.model.checkpoint import FILES

        files = tuple(file for file in model_files(self.context) if file.name in (TOKENIZER.name, FILES[0]))
        return Requirements(files=files, passes={"VQ encoder": 1, "VQ decoder": 1})


class VAEReconstruction:
    """The ceiling that Stable Diffusion's autoencoder sets to preservation, in float32."""

    card = MethodCard(
        kind="reference",
        note="the ceiling of the diffusion rows' autoencoder",
        citation="arXiv 2112.10752",
        licence="CreativeML OpenRAIL-M",
    )

    def __init__(self, context: MethodContext) -> None:
        self.asset = assets.ASSETS["autoencoder" if context.suite == "miniature" else "autoencoder-v1-4"]
        self.weights = assets.weights_folder(context)
        self.device = context.device
        self._vae: AutoencoderKL | None = None

    def load(self) -> None:
        from diffusers import AutoencoderKL

        from baselines.stable_diffusion.networks import load_network

        vae = load_network(AutoencoderKL, self.asset.find(self.weights) / "vae", low_cpu_mem_usage=False)
        self._vae = vae.requires_grad_(False).eval().to(self.device)

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image | NoAnswer]:
        from baselines.stable_diffusion.networks import answer, to_pixels

        assert self._vae is not None, "call load() first"
        answers = []
        for request in requests:  # one at a time, so that a result does not depend on its batch
            latent = self._vae.encode(to_pixels(request.image).to(self.device)).latent_dist.mean
            levels = (self._vae.decode(latent).sample[0] * 127.5 + 127.5).clamp(0, 255)
            answers.append(answer(levels, "float32"))
        return answers

    def settings(self) -> dict[str, Any]:
        return {"weights": digests((self.asset,), self.weights)}

    def requirements(self) -> Requirements:
        return Requirements(files=locate((self.asset,), self.weights), passes={"VAE encoder": 1, "VAE decoder": 1})
