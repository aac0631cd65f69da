"""The reference rows of translation: real images as they are, and through the autoencoders of other rows.

FID moves with an autoencoder, whatever the images show. These rows say by how much, and how well the scoring networks
read the real images. A `Translator` never gets the real image of its condition map, so they are none of
`baselines.TRANSLATORS`: each is a reference of editing that gets the real image as the one to edit.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image

from baselines.method import Answer, EditRequest, Method, MethodCard, MethodContext, Requirements, TranslateRequest
from baselines.references import CopySource, VAEReconstruction, VQReconstruction
from benchmarks.runs.generate import ChosenMethod, requirements_of

REFERENCES: dict[str, Callable[[MethodContext], Method]] = {
    "real-image": CopySource,
    "vq-reconstruction": VQReconstruction,
    "vae-reconstruction": VAEReconstruction,
}
NOTES = {
    "real-image": "the real images themselves, which FID compares with",
    "vq-reconstruction": "the real images through EditAR's tokenizer",
    "vae-reconstruction": "the real images through the diffusion rows' autoencoder",
}


def with_real_images(chosen: Sequence[ChosenMethod], real_image: Callable[[str], Image.Image]) -> list[ChosenMethod]:
    """The same methods, but this module's references now translate. real_image: of a sample id, as FID takes it."""
    return [
        replace(each, build=partial(RealImageReference, each.name, each.build, real_image))
        if each.build is REFERENCES.get(each.name)
        else each
        for each in chosen
    ]


class RealImageReference:
    """Answers a condition map with what a reference of editing makes of its real image."""

    def __init__(
        self,
        name: str,
        build: Callable[[MethodContext], Method],
        real_image: Callable[[str], Image.Image],
        context: MethodContext,
    ) -> None:
        self.editor = build(context)
        self.real_image = real_image
        self.card: MethodCard = replace(self.editor.card, note=NOTES[name])

    def load(self) -> None:
        if load := getattr(self.editor, "load", None):
            load()

    def translate(self, requests: Sequence[TranslateRequest]) -> Sequence[Answer]:
        return self.editor.edit([self._edit(request) for request in requests])

    def settings(self) -> dict[str, Any]:
        return self.editor.settings()

    def requirements(self) -> Requirements:
        return requirements_of(self.editor)

    def _edit(self, request: TranslateRequest) -> EditRequest:
        return EditRequest(
            sample_id=request.sample_id,
            image=self.real_image(request.sample_id),
            instruction="",
            source_prompt=request.caption,
            target_prompt=request.caption,
            blend_words=None,
            seed=request.seed,
        )
