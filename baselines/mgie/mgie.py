"""MGIE: LLaVA-7B rewrites the instruction and ends it with eight image tokens; its hidden states at these become, by
the edit head, the prompt of an InstructPix2Pix with a UNet of its own.

Settings are those of demo.ipynb of apple/ml-mgie, which leaves the pipeline's defaults.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines.assets import ASSETS
from baselines.instruct_pix2pix import INSTRUCT_PIX2PIX, Instructed, InstructedDiffusion
from baselines.method import (
    Answer,
    EditRequest,
    MethodCard,
    MethodContext,
    NoAnswer,
    NotedImage,
    Requirements,
    in_blocks,
)
from baselines.mgie.settings import END, NEW_TOKENS, NO_REPEAT
from baselines.stable_diffusion.networks import usual_dtype
from editar.io.assets import digests, locate

if TYPE_CHECKING:
    from torch import Tensor, nn

    from baselines.mgie.describer import Describer, Description
    from baselines.mgie.edit_head import EditHead
    from baselines.turns import Turns

CARD = MethodCard(kind="feed-forward", published_as="MGIE", citation="arXiv 2309.17102", licence="CC-BY-NC, LLaMA's")
ROW = replace(INSTRUCT_PIX2PIX, card=CARD, steps=100, miniature=None)
LLAVA_7B, MGIE_7B, VISION = ASSETS["LLaVA-7B-v1"], ASSETS["mgie_7b"], ASSETS["clip-vision"]
INSTRUCTION, TOKENS = "expressive instruction", "image tokens"  # what is noted of an image
# Of the published networks, by phase: LLaVA with projector and vision tower; UNet, VAE, text encoder and edit head.
PARAMETERS = {"describing": 7_045_883_904, "diffusion": 1_098_205_611}


@dataclass(frozen=True, kw_only=True)
class Described:
    """states: (8, hidden), which the edit head takes."""

    request: EditRequest
    states: "Tensor"


class MGIE:
    """row: what is sampled with. dtype: of all networks, one of DTYPES; without one float16 as published, on a CPU
    float32.

    The images of a batch are described one by one, then edited. On a GPU without room for all networks, those of the
    other phase are in main memory. Raises Unsupported in the miniature.
    """

    card = CARD

    def __init__(self, context: MethodContext, row: Instructed = ROW, dtype: str | None = None) -> None:
        if dtype is None:
            dtype = usual_dtype(context.device)
        self.diffusion = InstructedDiffusion(context, row, dtype)
        self.weights, self.device, self.dtype = context.weights, context.device, dtype
        self.images_at_once = context.images_at_once
        self._describer: Describer | None = None
        self._head: EditHead | None = None
        self._turns: Turns | None = None

    def load(self) -> None:
        import torch

        from baselines.mgie.describer import Describer
        from baselines.mgie.edit_head import read_edit_head
        from baselines.stable_diffusion.ldm import fill
        from baselines.turns import Turns
        from editar.io.tensors import map_pickle

        llava, own, clip = (asset.find(self.weights) for asset in (LLAVA_7B, MGIE_7B, VISION))
        self._turns = turns = Turns(self.device, sum(self._phases.values()))
        self.diffusion.load()
        model = self.diffusion.model
        state, _ = map_pickle(own / "unet.pt")
        fill(model.unet, state, own / "unet.pt", "").to(model.device, model.dtype)
        self._head = read_edit_head(own / "mllm.pt").to(model.device, model.dtype)
        turns.rest(*self._diffusion_networks)
        dtype = getattr(torch, self.dtype)
        self._describer = Describer.load(llava, own / "mllm.pt", clip, device=turns.waiting, dtype=dtype)

    @property
    def describer(self) -> "Describer":
        assert self._describer is not None, "call load() first"
        return self._describer

    @property
    def head(self) -> "EditHead":
        assert self._head is not None, "call load() first"
        return self._head

    def edit(self, requests: Sequence[EditRequest]) -> list[Answer]:
        turns = self._turns
        assert turns is not None, "call load() first"
        with turns.running(*self.describer.reader.networks):
            descriptions = [self.describer.describe(each.image, each.instruction) for each in requests]
        finite = [bool(each.states.isfinite().all()) for each in descriptions]
        given = [
            Described(request=request, states=each.states)
            for request, each, usable in zip(requests, descriptions, finite, strict=True)
            if usable
        ]
        with turns.running(*self._diffusion_networks):
            edited = iter(self._sample(given))
        return [
            _noted(next(edited), each) if usable else NoAnswer(f"the language model's states overflow in {self.dtype}")
            for each, usable in zip(descriptions, finite, strict=True)
        ]

    def settings(self) -> dict[str, Any]:
        settings = self.diffusion.settings()
        del settings["ema"]  # of the UNet that MGIE's own replaces
        settings["weights"] |= digests((MGIE_7B, LLAVA_7B, VISION), self.weights)
        decoding = {"decoding": "greedy", "new_tokens": NEW_TOKENS, "no_repeat_ngram_size": NO_REPEAT, "end": END}
        return {**settings, "language_model": decoding}

    def requirements(self) -> Requirements:
        diffusion = self.diffusion.requirements()
        return Requirements(
            files=diffusion.files + locate((MGIE_7B, LLAVA_7B, VISION), self.weights),
            passes={"LLaVA": NEW_TOKENS, **diffusion.passes},
            phases=self._phases,
            note="LLaVA's passes are the most tokens that it writes",
        )

    @in_blocks
    def _sample(self, given: Sequence[Described]) -> list[Image.Image | NoAnswer]:
        return self.diffusion.sample([each.request for each in given], self._texts([each.states for each in given]))

    def _texts(self, states: Sequence["Tensor"]) -> "Tensor":
        """(3B, queries, features): what the predictions of `editing.Guidance` read, from states (tokens, hidden)."""
        import torch

        head, model = self.head, self.diffusion.model
        with torch.no_grad():
            # Each by itself, so that rounding does not depend on the batch.
            texts = torch.cat([head(each[None].to(model.device, model.dtype)) for each in states])
            null = head.null().expand_as(texts)
        return torch.cat([texts, null, null]).float()

    @property
    def _diffusion_networks(self) -> "tuple[nn.Module, ...]":
        model = self.diffusion.model
        return model.unet, model.vae, model.text_encoder, self.head

    @property
    def _phases(self) -> dict[str, int]:
        """See Requirements."""
        return {phase: count * (4 if self.dtype == "float32" else 2) for phase, count in PARAMETERS.items()}


def _noted(answer: Image.Image | NoAnswer, description: "Description") -> Answer:
    if isinstance(answer, NoAnswer):
        return answer
    fallback = {TOKENS: description.fallback} if description.fallback else {}
    return NotedImage(image=answer, notes={INSTRUCTION: description.instruction, **fallback})
