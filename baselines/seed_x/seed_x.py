"""SEED-X-Edit as a method. Settings are those of eval_img2edit_seed_x_edit.py of AILab-CVC/SEED-X, at 420d347."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines.assets import ASSETS
from baselines.method import (
    Answer,
    EditRequest,
    MethodCard,
    MethodContext,
    NoAnswer,
    NotedImage,
    Requirements,
    refuse_miniature,
)
from baselines.stable_diffusion.networks import answer, check_dtype, noise, read_scheduler_config, usual_dtype
from editar.io.assets import digests, locate

if TYPE_CHECKING:
    from torch import Tensor

    from baselines.seed_x.de_tokenizer import DeTokenizer
    from baselines.seed_x.language_model import LanguageModel, Reply
    from baselines.turns import Turns

EDIT, DE_TOKENIZER, QWEN, SDXL = (
    ASSETS[name] for name in ("seed-x-17b-edit", "seed-x-17b-de-tokenizer", "Qwen-VL-Chat", "sdxl")
)
# Parameters of the published networks: of the language model with visual encoder and agent, of the UNet with the
# resampler, of the VAE.
LANGUAGE_MODEL, UNET, VAE = 15_170_037_504, 2_628_720_900, 83_653_863


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """The defaults are the published ones.

    new_tokens: of an answer, at most. steps: of Euler's sampler. by_text, by_image: scales of the guidance. Heads of
    attention leave no trace in the shapes: of the visual encoder, of the resamplers around the language model, of the
    de-tokenizer's resampler.
    """

    new_tokens: int = 512
    steps: int = 50
    by_text: float = 7.5
    by_image: float = 1.5
    vision_heads: int = 16
    agent_heads: int = 32
    de_tokenizer_heads: int = 16


PUBLISHED = Procedure()


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """null: the features that guidance leads away from."""

    language_model: "LanguageModel"
    de_tokenizer: "DeTokenizer"
    null: "Tensor"
    turns: "Turns"


class SeedXEdit:
    """dtype: of all networks but the VAE, one of DTYPES; without one float16 as published, on a CPU float32. Latents,
    noise and guidance are float32 in any case. On a GPU without room for all networks, those of the other phase are in
    main memory.

    Raises Unsupported in the miniature.
    """

    card = MethodCard(
        kind="feed-forward", published_as="SEED-X-Edit", citation="arXiv 2404.14396", licence="SEED-X-17B's"
    )

    def __init__(self, context: MethodContext, procedure: Procedure = PUBLISHED, dtype: str | None = None) -> None:
        refuse_miniature("SEED-X-Edit", context)
        if dtype is None:
            dtype = usual_dtype(context.device)
        check_dtype(dtype)
        self.weights, self.device, self.dtype = context.weights, context.device, dtype
        self.procedure = procedure
        self._loaded: _Loaded | None = None

    def load(self) -> None:
        """Raises ValueError for weights that are missing or too many, see the readers."""
        import torch

        from baselines.seed_x.de_tokenizer import read_de_tokenizer
        from baselines.seed_x.language_model import read_language_model
        from baselines.turns import Turns

        procedure, dtype = self.procedure, getattr(torch, self.dtype)
        turns = Turns(self.device, sum(self._phases.values()))
        language_model = read_language_model(
            EDIT.find(self.weights),
            QWEN.find(self.weights),
            vision_heads=procedure.vision_heads,
            agent_heads=procedure.agent_heads,
            new_tokens=procedure.new_tokens,
            dtype=dtype,
            device=turns.waiting,
        )
        de_tokenizer = read_de_tokenizer(
            DE_TOKENIZER.find(self.weights) / DE_TOKENIZER.files[0],
            SDXL.find(self.weights),
            heads=procedure.de_tokenizer_heads,
            dtype=dtype,
            device=turns.waiting,
        )
        with turns.running(language_model):
            null = language_model.null_features()
        self._loaded = _Loaded(language_model=language_model, de_tokenizer=de_tokenizer, null=null, turns=turns)

    def edit(self, requests: Sequence[EditRequest]) -> list[Answer]:
        """All replies of the language model, then all images."""
        loaded = self._loaded
        assert loaded is not None, "call load() first"
        with loaded.turns.running(loaded.language_model):
            replies = [loaded.language_model.reply(each.image, each.instruction) for each in requests]
        with loaded.turns.running(loaded.de_tokenizer):
            return [self._answer(request, reply, loaded) for request, reply in zip(requests, replies, strict=True)]

    def settings(self) -> dict[str, Any]:
        """Finds the weights, and fetches what is missing of them: they are part of the settings."""
        from diffusers import EulerDiscreteScheduler

        from baselines.seed_x.de_tokenizer import GUIDED_AS

        scheduler = EulerDiscreteScheduler.from_config(read_scheduler_config(SDXL.find(self.weights)))
        config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
        return {
            "new_tokens": self.procedure.new_tokens,
            "steps": self.procedure.steps,
            "guidance": GUIDED_AS,
            "text_guidance": self.procedure.by_text,
            "image_guidance": self.procedure.by_image,
            "scheduler": {"class": type(scheduler).__name__, **config},
            "dtype": self.dtype,
            "resizing": "bicubic",
            "weights": digests((EDIT, DE_TOKENIZER, QWEN, SDXL), self.weights),
        }

    def requirements(self) -> Requirements:
        """Each step of the sampler takes three predictions."""
        return Requirements(
            files=locate((EDIT, DE_TOKENIZER, QWEN, SDXL), self.weights),
            passes={"language model": self.procedure.new_tokens, "UNet": 3 * self.procedure.steps},
            phases=self._phases,
            note="the language model's passes are the most tokens that it writes",
        )

    @property
    def _phases(self) -> dict[str, int]:
        """See Requirements."""
        each = 4 if self.dtype == "float32" else 2
        return {"answering": LANGUAGE_MODEL * each, "drawing": UNET * each + VAE * 4}

    def _answer(self, request: EditRequest, reply: "Reply", loaded: "_Loaded") -> Answer:
        if reply.features is None:
            return NoAnswer(f"SEED-X answered without an image: {reply.text!r}")
        de_tokenizer = loaded.de_tokenizer
        seen = de_tokenizer.encode(request.image)
        drawn = de_tokenizer.draw(
            seen,
            reply.features,
            loaded.null,
            noise([request.seed], seen.shape[1:]),
            steps=self.procedure.steps,
            by_text=self.procedure.by_text,
            by_image=self.procedure.by_image,
        )
        # Clamped pixels would hide latents that have overflowed.
        pixels = (de_tokenizer.decode(drawn) if drawn.isfinite().all() else drawn)[0]
        image = answer((pixels * 255).round(), self.dtype)
        if isinstance(image, NoAnswer):
            return image
        return NotedImage(
            image=image.resize(request.image.size, Image.Resampling.BICUBIC), notes={"the model's answer": reply.text}
        )
