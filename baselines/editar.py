"""EditAR behind the method interface: it gets the instruction, or the condition and its caption, as the published rows
did."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines.assets import ASSETS
from baselines.method import EditRequest, MethodCard, MethodContext, Requirements, TranslateRequest
from editar.io.assets import Asset, AssetFile, locate

if TYPE_CHECKING:
    from editar.config import SamplingConfig
    from editar.pipeline import EditAR

RELEASED, TOKENIZER, T5 = (ASSETS[name] for name in ("editar_release.pt", "vq_ds16_t2i.pt", "flan-t5-xl"))
WIDTH = 8  # images decoded side by side, at most
PATCH = 16  # pixels along one side of what a token stands for, in the released model


class EditARMethod:
    """guidance: eta of the paper's equation 5, instead of the checkpoint's own."""

    card = MethodCard(kind="feed-forward", published_as="EditAR", citation="arXiv 2501.04699")

    def __init__(self, context: MethodContext, guidance: float | None = None) -> None:
        self.context = context
        self.guidance = guidance
        self.device = context.device
        # The published runs decoded in bfloat16; the miniature is small enough for float32.
        self.dtype = "bfloat16" if context.suite == "paper" else "float32"
        # Matrix products of other widths may round differently. So it is the data set that decides, which the run's
        # fingerprint has, and not what is in a batch, in a shard, within --limit or left to do.
        self.width = min(context.samples or WIDTH, WIDTH)
        self._model: EditAR | None = None

    def load(self) -> None:
        from editar.pipeline import EditAR

        self._model = EditAR.from_pretrained(
            weights_folder(self.context), device=self.device, dtype=self.dtype, width=self.width
        )

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        assert self._model is not None, "call load() first"
        return self._model.edit(
            [request.image for request in requests],
            [request.instruction for request in requests],
            guidance=self.guidance,
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
            guidance=self.guidance,
            seeds=[request.seed for request in requests],
        )

    def settings(self) -> dict[str, Any]:
        from editar.model.checkpoint import read_model

        files = read_model(weights_folder(self.context))
        sampling = self._sampling(files.sampling)
        settings = {"dtype": self.dtype, "sampling": asdict(sampling), "weights": files.digests()}
        taken = files.taken()
        return {**settings, "taken": taken} if taken else settings

    def requirements(self) -> Requirements:
        from editar.config import SamplingConfig
        from editar.io.tensors import map_safetensors
        from editar.model.checkpoint import FILES

        files = model_files(self.context)
        here = all(file.path for file in files)
        if here and (path := next((file.path for file in files if file.name == FILES[1]), None)):
            metadata = map_safetensors(path)[1]  # of the file's head; its tensors are not read
            tokens = json.loads(metadata["config"])["grid"] ** 2
            sampling = SamplingConfig(**json.loads(metadata.get("sampling", "{}")))
        else:
            tokens, sampling = (self.context.image_side // PATCH) ** 2, SamplingConfig()
        return Requirements(files=files, passes={"tokens decoded": tokens * (1 + self._sampling(sampling).guided)})

    def _sampling(self, own: "SamplingConfig") -> "SamplingConfig":
        """own: the checkpoint's."""
        return own if self.guidance is None else replace(own, guidance=self.guidance)


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


def model_files(context: MethodContext) -> tuple[AssetFile, ...]:
    """The model's files in our format or in its authors', whichever are there."""
    from editar.model.checkpoint import FILES

    try:
        folder = weights_folder(context)
    except ValueError:  # none was given
        folder = None

    ours = locate((Asset(name=name, source="benchmarks.miniature.build") for name in FILES), folder)
    official = locate((RELEASED, TOKENIZER), folder)
    if any(file.path for file in ours) or (context.suite == "miniature" and not any(file.path for file in official)):
        return ours
    if folder is not None and (text := folder / T5.name).is_dir():
        return *official, AssetFile(name=f"{T5.name}/", source=T5.origin, licence=T5.licence, path=text)
    return official + T5.locate(None)
