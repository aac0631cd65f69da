"""A model's networks: loaded, or as files of which only the headers have been read."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import torch

from editar.config import SamplingConfig, TransformerConfig, VQConfig, WordTextConfig
from editar.io.digests import file_digest
from editar.io.tensors import CheckpointError, Weights, fill
from editar.model.t5 import T5TextEncoder, used_files
from editar.model.text import WordTextEncoder
from editar.model.transformer import EditARTransformer
from editar.model.vq import VQModel

ConfigT = TypeVar("ConfigT", VQConfig, TransformerConfig, WordTextConfig)
NetworkT = TypeVar("NetworkT", VQModel, EditARTransformer, WordTextEncoder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """The networks of one model, in evaluation mode, and the settings it is sampled with by default."""

    vq: VQModel
    transformer: EditARTransformer
    text: WordTextEncoder | T5TextEncoder
    sampling: SamplingConfig

    def __post_init__(self) -> None:
        _check_fit(self.vq.config, self.transformer.config, self.text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part(Generic[ConfigT, NetworkT]):
    """A network in a file, not loaded: what it is, and how its tensors are mapped into memory."""

    path: Path
    config: ConfigT
    network: Callable[[ConfigT], NetworkT]
    mapped: Callable[[], Weights]

    def load(self, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> NetworkT:
        return fill(lambda: self.network(self.config), self.mapped, self.path, dtype=dtype, device=device)


VQPart = Part[VQConfig, VQModel]
TransformerPart = Part[TransformerConfig, EditARTransformer]
WordTextPart = Part[WordTextConfig, WordTextEncoder]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A model on disk, of which the headers are read and nothing else. `folder` is where it is."""

    folder: Path
    vq: VQPart
    transformer: TransformerPart
    text: WordTextPart | T5TextEncoder
    sampling: SamplingConfig

    def __post_init__(self) -> None:
        text = self.text.config if isinstance(self.text, Part) else self.text
        try:
            _check_fit(self.vq.config, self.transformer.config, text)
        except CheckpointError as error:
            raise CheckpointError(f"{self.folder}: its parts are not of one model: {error}") from error

    def load(self, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Parts:
        """The networks; transformer and T5, which reads its weights when called, in `dtype`; the rest in float32."""
        return Parts(
            vq=self.vq.load(device=device),
            transformer=self.transformer.load(device=device, dtype=dtype),
            text=self.text.load(device=device) if isinstance(self.text, Part) else self.text.to(device, dtype),
            sampling=self.sampling,
        )

    def taken(self) -> dict[str, str]:
        """Which weights of a file are taken, by its name, for files that do not hold them plainly: "ema", say."""
        parts = (self.vq, self.transformer, self.text)
        named = {part.path.name: part.mapped().taken for part in parts if isinstance(part, Part)}
        return {name: taken for name, taken in named.items() if taken}

    def digests(self) -> dict[str, str]:
        """sha256 of every file that the model is made of, by its place in the folder; where that is elsewhere, by its
        name and its folder's."""
        text = [self.text.path] if isinstance(self.text, Part) else used_files(self.text.folder)
        root = self.folder.absolute()
        return {
            path.relative_to(root if path.is_relative_to(root) else path.parents[1]).as_posix(): file_digest(path)
            for path in (each.absolute() for each in [self.vq.path, self.transformer.path, *text])
        }


def _check_fit(
    vq: VQConfig, transformer: TransformerConfig, text: WordTextConfig | WordTextEncoder | T5TextEncoder
) -> None:
    if (text.length, text.dim) != (transformer.text_length, transformer.text_dim):
        raise CheckpointError(
            f"the text encoder gives {text.length} x {text.dim}, but the transformer expects "
            f"{transformer.text_length} x {transformer.text_dim}"
        )
    if vq.codebook_size != transformer.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {vq.codebook_size} codes, but the transformer {transformer.vocab_size}"
        )
