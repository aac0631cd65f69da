"""The peak of memory while a block of images is decoded."""

import ctypes

import torch

from benchmarks.runs.memory import GPU, MAIN, held_bytes, kind, peak_bytes, reset_peak
from benchmarks.speed.decode_cost import jump
from editar.config import SamplingConfig
from editar.decoding.decoder import Batch
from editar.model.transformer import EditARTransformer

LAYERS = 2  # of the prefill: what it works with is free again after each, and a whole one may take minutes


@torch.inference_mode()
def decoding_peak(model: EditARTransformer, width: int, settings: SamplingConfig) -> int | None:
    """Bytes that decoding `width` images takes at most besides the weights: the whole cache, and what is worked with.

    None where the system does not tell: on a CPU without Linux, or beside a GPU, whose memory is then looked at.
    """
    device, config = model.tok_embeddings.weight.device, model.config
    if kind() != (GPU if device.type == "cuda" else MAIN):
        return None
    _give_back()
    reset_peak()
    before = held_bytes()
    batch = Batch(model, width, settings)
    jump(batch, config.image_tokens - 2)  # every slot has its memory
    batch.advance(config.image_tokens - 2)
    every_layer = batch.model.layers
    batch.model.layers = every_layer[:LAYERS]  # the others' caches stay where they are
    batch.start(
        torch.zeros(width, config.image_tokens, dtype=torch.int64, device=device),
        torch.zeros(width, config.text_length, config.text_dim, device=device),
        batch.uniforms_BN.clone(),
    )
    return peak_bytes() - before


def _give_back() -> None:
    """Main memory that was freed counts as held until the C library gives it back; glibc's does so when asked."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
