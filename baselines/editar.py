"""EditAR behind the method interface: it gets the instruction, or the condition and its caption, as the published rows
did."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines.method import EditRequest, MethodContext, TranslateRequest

if TYPE_CHECKING:
    from editar.pipeline import EditAR


class EditARMethod:
    def __init__(self, context: MethodContext) -> None:
        self.folder = weights_folder(context)
        self.device = context.device
        # The published runs decoded in bfloat16; the miniature is small enough for float32.
        self.dtype = "bfloat16" if context.suite == "paper" else "float32"
        self._model: EditAR | None = None

    def load(self) -> None:
        from editar.pipeline import EditAR

        self._model = EditAR.from_pretrained(self.folder, device=self.device, dtype=self.dtype)

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        assert self._model is not None, "call load() first"
        return self._model.edit(
            [request.image for request in requests],
            [request.instruction for request in requests],
            seeds=[request.seed for request in requests],
        )

    def translate(self, requests: Sequence[TranslateRequest]) -> list[Image.Image]:
        """Prompts are worded as the released checkpoint was trained. Raises ValueError where tasks are mixed."""
        assert self._model is not None, "call load() first"
        tasks = {request.task for request in requests}
        if len(tasks) != 1:
            raise ValueError(f"the requests are of the tasks {sorted(tasks)}; give those of one task at a time")
        return self._model.translate(
            [request.condition for request in requests],
            [request.caption for request in requests],
            task=tasks.pop(),
            seeds=[request.seed for request in requests],
        )

    def settings(self) -> dict[str, Any]:
        from editar.checkpoint import read_model

        files = read_model(self.folder)
        return {"dtype": self.dtype, "sampling": asdict(files.sampling), "weights": files.digests()}


def weights_folder(context: MethodContext) -> Path:
    """The folder with the model's files: editar/ in the one the user gave, or that one; else the miniature's own."""
    from editar.pipeline import miniature_weights

    if context.weights is not None:
        inner = context.weights / "editar"
        return inner if inner.is_dir() else context.weights
    if context.suite == "miniature":
        return miniature_weights()
    raise ValueError(
        "EditAR needs its released weights: put editar_release.pt, vq_ds16_t2i.pt and flan-t5-xl/ into one folder and "
        "pass it as --weights DIR"
    )
