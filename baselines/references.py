"""Rows that edit nothing and bound the others: the source image as it is, and through EditAR's tokenizer and back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines.editar import TOKENIZER, model_files, weights_folder
from baselines.method import EditRequest, MethodCard, MethodContext, Requirements
from editar.io.digests import file_digest

if TYPE_CHECKING:
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
