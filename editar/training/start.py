"""The networks that a training starts from."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch.utils.checkpoint import checkpoint

from editar.config import SIZES, SamplingConfig
from editar.io.digests import file_digest
from editar.model.checkpoint import read_model
from editar.model.files import Parts
from editar.model.official import OFFICIAL_TEXT_TO_IMAGE, OFFICIAL_VQ, find_t5, load_text_to_image, official_vq
from editar.model.t5 import T5TextEncoder, used_files
from editar.model.text import WordTextEncoder
from editar.model.transformer import EditARTransformer


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is trained, and from where."""

    start: Path
    """A folder with a model of ours (vq, transformer, text .safetensors) or with the authors' files."""
    initial: Literal["editar", "text-to-image"] = "editar"
    """`editar`: go on from the trained model in there; `text-to-image`: from LlamaGen's t2i_XL_stage2_512.pt, beside
    vq_ds16_t2i.pt, as the paper does."""
    text: str | None = None
    """A folder or hub id of the T5 text encoder, instead of the one beside the model or on the hub."""
    trainable_null: bool = False
    """Train the null embeddings too. The released model's are frozen random values."""
    activation_checkpointing: bool = False
    """Compute each layer again on the way back instead of keeping what it computed: less memory, a third more time."""
    compiled: bool = False
    """torch.compile of the layers, for GPUs: the first step takes minutes, the others less."""


def load_start(config: ModelConfig) -> Parts:
    """The networks on the CPU in float32. Raises CheckpointError or FileNotFoundError that name what is missing."""
    if config.initial == "text-to-image":
        size = replace(SIZES["XL"], trainable_null=config.trainable_null)
        parts = Parts(
            vq=official_vq(config.start / OFFICIAL_VQ).load(),
            transformer=load_text_to_image(config.start / OFFICIAL_TEXT_TO_IMAGE, size),
            text=T5TextEncoder(config.text or find_t5(config.start), length=size.text_length),
            sampling=SamplingConfig(),
        )
    else:
        parts = read_model(config.start, config.text).load()
    return replace(parts, transformer=_with_null(parts.transformer, config.trainable_null))


def start_digests(config: ModelConfig) -> dict[str, str]:
    """SHA-256 of the files that `load_start` reads, by name."""
    if config.initial == "text-to-image":
        text = T5TextEncoder(config.text or find_t5(config.start), length=SIZES["XL"].text_length)
        files = [config.start / OFFICIAL_VQ, config.start / OFFICIAL_TEXT_TO_IMAGE, *used_files(text.folder)]
        return {path.name: file_digest(path) for path in files}
    return read_model(config.start, config.text).digests()


def _with_null(transformer: EditARTransformer, trainable: bool) -> EditARTransformer:
    """The same weights with the null embeddings as parameters or as buffers."""
    if transformer.config.trainable_null == trainable:
        return transformer
    other = EditARTransformer(replace(transformer.config, trainable_null=trainable))
    other.load_state_dict(transformer.state_dict())
    return other


def checkpoint_activations(transformer: EditARTransformer) -> None:
    """Keep the inputs of the layers only; the state dict stays as it is."""
    for block in transformer.layers:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def compile_layers(transformer: EditARTransformer) -> None:
    """Each layer by itself, which is how FSDP2 wraps them; the state dict stays as it is."""
    for block in transformer.layers:
        block.compile()


def frozen(parts: Parts, device: torch.device, dtype: torch.dtype) -> Parts:
    """Everything on the device; tokenizer and text encoder as they are, without gradients.

    dtype: of a T5's arithmetic, bfloat16 in the released training.
    """
    parts.vq.to(device).requires_grad_(False).eval()
    if isinstance(parts.text, T5TextEncoder):
        text: WordTextEncoder | T5TextEncoder = parts.text.to(device, dtype)
    else:
        text = parts.text.to(device).requires_grad_(False).eval()
    return replace(parts, transformer=parts.transformer.to(device), text=text)
