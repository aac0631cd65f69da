"""EditAR as a user meets it: PIL images and texts in, PIL images out."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from editar.config import DRAFTS, DraftConfig, SamplingConfig
from editar.decoding.cpu.linear import Int8Linear, can_pack, pack, require_int8
from editar.decoding.decoder import Decoder
from editar.devices import require_device
from editar.images import Fit, to_image, to_tensor
from editar.io.tensors import CheckpointError
from editar.memory import require_memory
from editar.model.checkpoint import FILES, read_model
from editar.model.files import Parts
from editar.model.t5 import T5TextEncoder
from editar.prompts import translation_prompt

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EditAR:
    """One model, ready to edit. Images of any size go in; they come out square, `side` pixels a side.

    A result depends on its image, text, settings and seed, not on what else is in the call: tokenizer and text
    encoder take one input at a time, and the transformer decodes in blocks of a fixed width.

    >>> model = EditAR.from_pretrained()  # the miniature that comes with the package
    >>> scene = Image.new("RGB", (64, 64), "green")
    >>> [edited] = model.edit([scene], ["change the background to snow"], seeds=[1])
    >>> edited.size
    (64, 64)
    >>> [again] = model.edit([scene], ["change the background to snow"], seeds=[1])
    >>> again == edited
    True
    """

    def __init__(
        self,
        parts: Parts,
        *,
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        width: int = 8,
        int8: bool = False,
        drafts: DraftConfig = DRAFTS,
    ) -> None:
        """parts: taken over: cast, moved and, on a CPU, laid out for decoding, in place.

        dtype: of transformer and T5, "float32" or "bfloat16" (the published runs); the tokenizer stays in float32.

        width: images decoded together. Other widths may round differently, but not where steps are fused (on a CPU with
        a C++ compiler): there an image has the same bits at every width.
        int8: the transformer's matrices as 8-bit integers, for CPUs: faster than bfloat16, with rounded weights.
        Activations stay in dtype. ValueError where that cannot work.
        drafts: how many tokens a pass of the transformer takes, which moves none of them.
        """
        _check_settings(device, dtype, width, int8)
        self.device = torch.device(device)
        self.vq = parts.vq.to(self.device)
        self.transformer = parts.transformer.to(self.device, DTYPES[dtype])
        if int8:
            pack(self.transformer, Int8Linear)
        elif can_pack(self.transformer):
            pack(self.transformer)
        self.decoder = Decoder(self.transformer)
        text = parts.text
        self.text = text.to(self.device, DTYPES[dtype]) if isinstance(text, T5TextEncoder) else text.to(self.device)
        self.sampling = parts.sampling
        self.width = width
        self.drafts = drafts

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
        drafts: DraftConfig = DRAFTS,
    ) -> "EditAR":
        """Load a model.

        source: a folder of ours (vq, transformer and text.safetensors), or one with the authors' files
        (editar_release.pt, vq_ds16_t2i.pt, and flan-t5-xl/, without which the text encoder comes from the hub);
        None is the miniature that ships with the package. text_source: another folder or hub id of the T5.
        Raises CheckpointError, saying which file is wrong or missing, and NotEnoughMemory before anything is loaded.
        """
        _check_settings(device, dtype, width, int8)
        files = read_model(Path(source) if source is not None else miniature_weights(), text_source)
        require_memory(files, device=device, dtype=DTYPES[dtype], width=width, int8=int8)
        parts = files.load(device=device, dtype=DTYPES[dtype])
        return cls(parts, device=device, dtype=dtype, width=width, int8=int8, drafts=drafts)

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
        fit: Fit = "crop",
        progress: Callable[[], object] | None = None,
    ) -> list[Image.Image]:
        """Edit each image as its instruction says.

        guidance: eta of the paper's equation 5; sampling: all settings; None takes the checkpoint's own.
        seeds: one per image, 0 for all if None. fit: how images are made square, see `editar.images.fitted`; its
        `paste_back` gives a result the size of its image. progress: called after each token that up to `width` images
        get.
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
            text = self._embed(instructions)
            condition = torch.cat([self._encode(image, fit) for image in images])
        seeds = [0] * count if seeds is None else seeds
        tokens = self.decoder.generate(
            condition, text, seeds, settings, width=self.width, drafts=self.drafts, progress=progress
        )
        return self._decode(tokens)

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
        fit: Fit = "crop",
    ) -> list[Image.Image]:
        """Images from depth, canny or segmentation maps and captions.

        task: "depth", "canny" or "segmentation"; template: the wording of the prompt, a name in
        `prompts.TEMPLATES`; the rest as in `edit`.
        """
        texts = [translation_prompt(task, caption, template) for caption in captions]
        return self.edit(conditions, texts, guidance=guidance, seeds=seeds, sampling=sampling, fit=fit)

    def reconstruct(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """The images through the tokenizer and back: what an edit can keep at best."""
        with torch.no_grad():
            return [restored for image in images for restored in self._decode(self._encode(image))]

    def _embed(self, texts: Sequence[str]) -> Tensor:
        if isinstance(self.text, T5TextEncoder):  # takes one text at a time by itself, and has its weights to load
            return self.text(texts)
        return torch.cat([self.text([text]) for text in texts])

    def _encode(self, image: Image.Image, fit: Fit = "crop") -> Tensor:
        return self.vq.encode(to_tensor(image, self.side, fit)[None].to(self.device))

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


def _check_settings(device: str | torch.device, dtype: str, width: int, int8: bool) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    if width < 1:
        raise ValueError(f"width is {width}; it must be at least 1 (--batch-size)")
    if int8:
        require_int8(device)
    require_device(device)
