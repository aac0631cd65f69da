"""MGIE: LLaVA-7B rewrites the instruction and ends it with eight image tokens; its hidden states at these become, by
the edit head, the prompt of an InstructPix2Pix with a UNet of its own.

LLaVA pins old libraries and runs in its own environment, by `recipes/mgie.toml`, once for each batch; all else is here.
Settings are those of demo.ipynb of apple/ml-mgie, which leaves the pipeline's defaults.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from baselines.assets import ASSETS
from baselines.external import External, Recipe, ask, read_recipe
from baselines.instruct_pix2pix import INSTRUCT_PIX2PIX, Instructed, InstructedDiffusion
from baselines.method import EditRequest, MethodCard, MethodContext, NoAnswer, Request, Requirements
from baselines.recipes import MGIE as RECIPE
from editar.io.assets import digests, locate

if TYPE_CHECKING:
    from torch import Tensor

    from baselines.mgie.edit_head import EditHead

CARD = MethodCard(kind="feed-forward", published_as="MGIE", citation="arXiv 2309.17102", licence="MIT")
ROW = replace(INSTRUCT_PIX2PIX, card=CARD, steps=100, miniature=None)
LLAVA_7B, MGIE_7B, VISION = ASSETS["LLaVA-7B-v1"], ASSETS["mgie_7b"], ASSETS["clip-vision"]
AT_ONCE = 4  # images that are sampled together, which bounds the memory whatever the batch


class MGIE:
    """row: what is sampled with. dtype: of edit head and diffusion model, one of DTYPES; without one float16 as
    published, on a CPU float32.

    Raises Unsupported in the miniature. Where an environment variable that the recipe names is not set, `settings`
    raises ValueError.
    """

    card = CARD

    def __init__(self, context: MethodContext, row: Instructed = ROW, dtype: str | None = None) -> None:
        if dtype is None:
            dtype = "float32" if context.device == "cpu" else "float16"
        self.diffusion = InstructedDiffusion(context, row, dtype)
        self.weights = context.weights
        self._head: EditHead | None = None

    @cached_property
    def recipe(self) -> Recipe:
        """Finds the weights of both sides, and fetches what is missing."""
        llava, own = LLAVA_7B.find(self.weights), MGIE_7B.find(self.weights)
        return read_recipe(RECIPE, LLAVA_7B=str(llava.resolve()), MGIE_7B=str(own.resolve()))

    def load(self) -> None:
        from baselines.mgie.edit_head import read_edit_head
        from baselines.stable_diffusion.ldm import fill
        from editar.io.tensors import map_pickle

        folder = MGIE_7B.find(self.weights)
        self.diffusion.load()
        model = self.diffusion.model
        state, _ = map_pickle(folder / "unet.pt")
        fill(model.unet, state, folder / "unet.pt", "").to(model.device, model.dtype)
        self._head = read_edit_head(folder / "mllm.pt").to(model.device, model.dtype)

    @property
    def head(self) -> "EditHead":
        assert self._head is not None, "call load() first"
        return self._head

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image | NoAnswer]:
        states = ask(self.recipe, requests, ".npy", self._read)
        given = [
            (request, each) for request, each in zip(requests, states, strict=True) if not isinstance(each, NoAnswer)
        ]
        edited = self._sample(given)
        return [each if isinstance(each, NoAnswer) else next(edited) for each in states]

    def settings(self) -> dict[str, Any]:
        _unfilled_recipe().check_variables()  # before gigabytes are fetched
        settings = self.diffusion.settings()
        del settings["ema"]  # of the UNet that MGIE's own replaces
        settings["weights"] |= digests((MGIE_7B,), self.weights)
        return {**settings, "language_model": External(self.recipe).settings()}

    def requirements(self) -> Requirements:
        recipe, diffusion = _unfilled_recipe(), self.diffusion.requirements()
        return Requirements(
            files=diffusion.files + locate((MGIE_7B, LLAVA_7B), self.weights) + VISION.locate(None),
            passes={"LLaVA": recipe.settings["new_tokens"], **diffusion.passes},
            unset=recipe.unset,
            note="every batch loads LLaVA anew; its passes are the most tokens that it writes",
        )

    def _sample(self, given: Sequence[tuple[EditRequest, np.ndarray]]) -> Iterator[Image.Image | NoAnswer]:
        """A few at a time: a batch is as large as makes LLaVA's loading worth while."""
        for start in range(0, len(given), AT_ONCE):
            requests, states = zip(*given[start : start + AT_ONCE], strict=True)
            yield from self.diffusion.sample(requests, self._texts(states))

    def _texts(self, states: Sequence[np.ndarray]) -> "Tensor":
        """(3B, queries, features): what the predictions of `editing.Guidance` read, from states (tokens, hidden)."""
        import torch

        head, model = self.head, self.diffusion.model
        with torch.no_grad():
            batch = torch.from_numpy(np.stack(states)).to(model.device, model.dtype)
            # Each by itself, so that rounding does not depend on the batch.
            texts = torch.cat([head(each[None]) for each in batch])
            null = head.null().expand_as(texts)
        return torch.cat([texts, null, null]).float()

    def _read(self, path: Path, request: Request) -> np.ndarray:
        """(tokens, hidden) of a file in NumPy's format."""
        states = np.load(path, mmap_mode="r", allow_pickle=False)  # read once its shape is known
        wanted = tuple(self.head.image_tokens.shape)
        if states.shape != wanted or not np.issubdtype(states.dtype, np.floating):
            raise NoAnswer(f"answers/{path.name} is {states.dtype} {states.shape}; the edit head takes floats {wanted}")
        if not np.isfinite(states).all():
            raise NoAnswer(f"answers/{path.name} is not finite: LLaVA overflowed")
        return np.array(states)


def _unfilled_recipe() -> Recipe:
    """The recipe without the folders of the weights, which are yet to be found."""
    return read_recipe(RECIPE, LLAVA_7B="", MGIE_7B="")
