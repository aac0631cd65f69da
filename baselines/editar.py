"""EditAR behind the method interface: it gets the instruction, or the condition and its caption, as the published rows
did."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines.method import EditRequest, MethodContext, TranslateRequest
from editar.digests import file_digest

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
        return {"dtype": self.dtype, "sampling": _sampling(self.folder), "weights": _digests(self.folder)}


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


def _digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file that the model is made of; a text encoder that the hub gives is named only."""
    from editar.checkpoint import FILES, OFFICIAL_T5, OFFICIAL_TRANSFORMER, OFFICIAL_VQ
    from editar.pipeline import is_official

    if not is_official(folder):
        return {name: file_digest(folder / name) for name in FILES}
    names = [OFFICIAL_TRANSFORMER, OFFICIAL_VQ]
    text = folder / OFFICIAL_T5.split("/")[1]
    tensors = sorted(text.glob("*.safetensors")) or sorted(text.glob("*.bin"))
    paths = [folder / name for name in names] + sorted(text.glob("*.json")) + sorted(text.glob("*.model")) + tensors
    digests = {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}
    return digests if text.is_dir() else {**digests, OFFICIAL_T5: "from the hub"}


def _sampling(folder: Path) -> dict[str, Any]:
    """The settings that the model is sampled with, without loading it."""
    from safetensors import safe_open

    from editar.checkpoint import FILES
    from editar.config import SamplingConfig
    from editar.pipeline import is_official

    if is_official(folder):
        return asdict(SamplingConfig())
    with safe_open(folder / FILES[1], framework="pt") as file:
        return asdict(SamplingConfig(**json.loads((file.metadata() or {}).get("sampling", "{}"))))
