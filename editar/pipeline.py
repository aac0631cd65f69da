"""EditAR as a user meets it: PIL images and texts in, PIL images out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from editar.checkpoint import (
    FILES,
    OFFICIAL_T5,
    OFFICIAL_TRANSFORMER,
    OFFICIAL_VQ,
    CheckpointError,
    Parts,
    load_folder,
    load_official_transformer,
    load_official_vq,
)
from editar.config import SamplingConfig
from editar.decoding import Decoder
from editar.images import to_image, to_tensor
from editar.int8 import quantise
from editar.prompts import translation_prompt
from editar.text import T5TextEncoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EditAR:
    """One model, ready to edit. Images of any size go in; they come out square, `side` pixels a side.

    A result depends on its image, text, settings and seed, not on what else is in the call: tokenizer and text
    encoder take one input at a time, and the transformer decodes in blocks of a fixed width.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        width: int = 8,
        int8: bool = False,
    ) -> None:
        """dtype: of the transformer, "float32" or "bfloat16" (the published runs); the tokenizer stays in float32.

        width: images decoded together. Other widths may round differently.
        int8: the transformer's matrices as 8-bit integers, for CPUs: faster than bfloat16, with rounded weights.
        """
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
        if width < 1:
            raise ValueError(f"width is {width}; it must be at least 1")
        self.device = torch.device(device)
        self.vq = parts.vq.to(self.device)
        self.transformer = parts.transformer.to(self.device, DTYPES[dtype])
        if int8:
            quantise(self.transformer)
        self.decoder = Decoder(self.transformer)
        self.text = parts.text.to(self.device)
        self.sampling = parts.sampling
        self.width = width

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        text_source: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        width: int = 8,
        int8: bool = False,
    ) -> "EditAR":
        """Load a model.

        source: a folder of ours (vq, transformer and text.safetensors), or one with the authors' files
        (editar_release.pt, vq_ds16_t2i.pt, and flan-t5-xl/, without which the text encoder comes from the hub);
        None is the miniature that ships with the package. text_source: another folder or hub id of the T5.
        Raises CheckpointError, saying which file is wrong or missing.
        """
        folder = Path(source) if source is not None else miniature_weights()
        parts = load_official(folder, text_source) if is_official(folder) else load_folder(folder, text_source)
        return cls(parts, device=device, dtype=dtype, width=width, int8=int8)

    @property
    def side(self) -> int:
        """Pixels along one side of the images that come out."""
        return self.transformer.config.grid * self.vq.config.downsampling

    def edit(
        self,
        images: Sequence[Image.Image],
        instructions: Sequence[str],
        *,
        guidance: float | None = None,
        seeds: Sequence[int] | None = None,
        sampling: SamplingConfig | None = None,
    ) -> list[Image.Image]:
        """Edit each image as its instruction says.

        guidance: eta of the paper's equation 5; sampling: all settings; None takes the checkpoint's own.
        seeds: one per image, 0 for all if None.
        """
        count = len(images)
        if len(instructions) != count:
            raise ValueError(f"{count} images, but {len(instructions)} texts; expected one each")
        if seeds is not None and len(seeds) != count:
            raise ValueError(f"{count} images, but {len(seeds)} seeds; expected one each")
        if count == 0:
            return []
        settings = sampling or self.sampling
        if guidance is not None:
            settings = dataclasses.replace(settings, guidance=guidance)
        with torch.no_grad():
            condition = torch.cat([self._encode(image) for image in images])
            text = torch.cat([self.text([instruction]) for instruction in instructions])
        seeds = [0] * count if seeds is None else seeds
        return self._decode(self.decoder.generate(condition, text, seeds, settings, width=self.width))

    def translate(
        self,
        conditions: Sequence[Image.Image],
        captions: Sequence[str],
        *,
        task: str,
        template: str = "released",
        guidance: float | None = None,
        seeds: Sequence[int] | None = None,
        sampling: SamplingConfig | None = None,
    ) -> list[Image.Image]:
        """Images from depth, canny or segmentation maps and captions.

        task: "depth", "canny" or "segmentation"; template: the wording of the prompt, a name in
        `prompts.TEMPLATES`; the rest as in `edit`.
        """
        texts = [translation_prompt(task, caption, template) for caption in captions]
        return self.edit(conditions, texts, guidance=guidance, seeds=seeds, sampling=sampling)

    def reconstruct(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """The images through the tokenizer and back: what an edit can keep at best."""
        with torch.no_grad():
            return [restored for image in images for restored in self._decode(self._encode(image))]

    def _encode(self, image: Image.Image) -> Tensor:
        return self.vq.encode(to_tensor(image, self.side)[None].to(self.device))

    @torch.no_grad()
    def _decode(self, tokens_BN: Tensor) -> list[Image.Image]:
        return [to_image(self.vq.decode(tokens)[0]) for tokens in tokens_BN.split(1)]


def miniature_weights() -> Path:
    """The folder of the miniature's weights: in the installed package, or in the checkout around it."""
    package = Path(__file__).parent
    candidates = (package / "weights", package.parent / "benchmarks" / "miniature" / "weights" / "editar")
    for folder in candidates:
        if (folder / FILES[0]).is_file():
            return folder
    raise CheckpointError(
        "the miniature's weights are not there: give a model's folder, or make them with "
        "`python -m benchmarks.miniature.build` in a checkout"
    )


def is_official(folder: Path) -> bool:
    """Whether a folder holds the authors' files; a folder without any model is an error."""
    if any((folder / name).is_file() for name in FILES):
        return False
    if all((folder / name).is_file() for name in (OFFICIAL_TRANSFORMER, OFFICIAL_VQ)):
        return True
    raise CheckpointError(
        f"{folder}: no model here; expected {', '.join(FILES)}, or the authors' files {OFFICIAL_TRANSFORMER} and "
        f"{OFFICIAL_VQ}"
    )


def load_official(folder: Path, text_source: str | Path | None = None) -> Parts:
    """The authors' files in one folder, with the published sampling settings."""
    local = folder / OFFICIAL_T5.split("/")[1]
    transformer = load_official_transformer(folder / OFFICIAL_TRANSFORMER)
    text = T5TextEncoder(
        text_source or (local if local.is_dir() else OFFICIAL_T5), length=transformer.config.text_length
    )
    return Parts(
        vq=load_official_vq(folder / OFFICIAL_VQ), transformer=transformer, text=text, sampling=SamplingConfig()
    )
