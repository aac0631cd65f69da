"""What a token of decoding reads, what the memory could deliver, where the time goes, and the peak of memory."""

import ctypes
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.runs.memory import GPU, MAIN, held_bytes, kind, peak_bytes, reset_peak
from benchmarks.speed.measure import take_turns
from editar.config import SamplingConfig
from editar.decoding.cache import attend_to_cache
from editar.decoding.cpu.linear import Int8Linear, PackedLinear
from editar.decoding.cpu.step import FusedTransformer
from editar.decoding.decoder import Batch
from editar.decoding.forward import CachedTransformer
from editar.decoding.sampling import guide, sample
from editar.model.transformer import EditARTransformer

MATRIX = (7168, 1280)  # GPT-XL's w1 and w3
STEP = "whole step"
MATRICES = 32  # 0.6 GB: more than any cache of a processor
LAYERS = 2  # of the prefill: what it works with is free again after each, and a whole one may take minutes


def seconds(action: Callable[[], object], device: torch.device, rounds: int = 5) -> float:
    """The median over rounds, after one that warms up; 0 rounds time a single one, cold."""
    times = []
    for _ in range(rounds + 1):
        _wait(device)
        start = time.perf_counter()
        action()
        _wait(device)
        times.append(time.perf_counter() - start)
    return median(times[1:] or times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bandwidth(device: torch.device) -> dict[str, float]:
    """Bytes per second over 0.6 GB of matrices, of plain bfloat16 matrix-vector products and of looking for the largest
    number, which is hardly more than reading them."""
    matrices = torch.randn(MATRIX, device=device).bfloat16().repeat(MATRICES, 1, 1)
    vector = torch.randn(MATRIX[1], device=device).bfloat16()

    def products() -> None:
        for matrix in matrices:
            torch.mv(matrix, vector)

    return {
        "product": matrices.nbytes / seconds(products, device),
        "reading": matrices.nbytes / seconds(matrices.view(torch.float32).amax, device),
    }


Linear = nn.Linear | Int8Linear | PackedLinear


def linears(model: EditARTransformer) -> Iterator[Linear]:
    """The matrices that every token reads."""
    for module in [*model.layers.modules(), model.output]:
        if isinstance(module, Linear):
            yield module


def weight_bytes(model: EditARTransformer) -> int:
    return sum(m.in_features * m.out_features * _itemsize(m) for m in linears(model))


def _itemsize(linear: Linear) -> int:
    if isinstance(linear, Int8Linear):
        return 1
    return (linear.dtype if isinstance(linear, PackedLinear) else linear.weight.dtype).itemsize


def token_bytes(model: EditARTransformer, images: int, rows_each: int, fed: float) -> float:
    """What a step has to read after `fed` fed tokens: weights, each image's prefix, each row's filled slots."""
    config = model.config
    slots = images * (config.image_tokens + rows_each * (fed + 2))
    return weight_bytes(model) + 2 * config.layers * config.dim * slots * model.tok_embeddings.weight.dtype.itemsize


def jump(batch: Batch, fed: int) -> None:
    """Put a batch behind that many fed tokens, all of them zeros: what is in a cache does not matter to the time."""
    batch.model.restart()
    batch.model.make_room(fed)
    batch.done_B.fill_(fed + 1)
    batch.drawn_B.fill_(fed + 1)
    batch.model.slot_B.fill_(fed + 1)
    for layer in batch.model.layers:
        layer.prefix_k.zero_()
        layer.prefix_v.zero_()


@torch.inference_mode()
def step_seconds(batch: Batch, position: int, tokens: int) -> float:
    """Seconds a token, mean of so many from a position on; two before them warm up."""
    jump(batch, position)
    return timed_steps(batch.advance, position, tokens, batch.tokens_BN.device)


def timed_steps(step: Callable[[int], object], position: int, tokens: int, device: torch.device) -> float:
    """Of steps that take the number of fed tokens, as `step_seconds`."""
    for fed in range(position, position + 2):
        step(fed)
    _wait(device)
    start = time.perf_counter()
    for fed in range(position + 2, position + 2 + tokens):
        step(fed)
    _wait(device)
    return (time.perf_counter() - start) / tokens


@torch.inference_mode()
def parts(batch: Batch, positions: list[int], settings: SamplingConfig, rounds: int) -> dict[str, float]:
    """Seconds a token of the parts of a step, each by itself in turns with whole steps, mean over the positions."""
    model, device = batch.model, batch.tokens_BN.device
    rows = model.images * model.rows_each
    dtype = model.model.tok_embeddings.weight.dtype
    modules = list(linears(model.model))
    inputs = {m.in_features: torch.randn(rows, 1, m.in_features, device=device).to(dtype) for m in modules}
    logits = torch.randn(rows, model.model.config.vocab_size, device=device)
    actions: dict[str, Callable[[], object]] = {
        "linear layers": lambda: [m(inputs[m.in_features]) for m in modules],
        "attention": lambda: _attend(model),
        "guidance and drawing": lambda: sample(guide(logits, settings.guidance), batch.uniforms_BN[:, 0], settings),
    }
    taken: dict[str, list[float]] = {name: [] for name in (STEP, *actions)}
    for position in positions:
        ways = {name: partial(seconds, action, device, rounds=1) for name, action in actions.items()}
        turns = take_turns({STEP: partial(step_seconds, batch, position, tokens=2), **ways}, rounds)
        for name, times in turns.items():
            taken[name].append(median(times))
    return {name: sum(times) / len(times) for name, times in taken.items()}


def _attend(model: CachedTransformer) -> None:
    config, layers = model.model.config, model.layers
    if isinstance(model, FusedTransformer):
        qkv = layers[0].prefix_k.new_zeros(model.images * model.rows_each, 3 * config.dim)
        tables = model.model.rotations(qkv.device)[-1:].repeat(model.images, 1, 1, 1)
        for layer in layers:
            model.attend(qkv, tables, layer)
        return
    q = layers[0].prefix_k.new_zeros(model.images * model.rows_each, config.heads, 1, config.head_dim)
    bias = torch.zeros(model.images, 1, config.image_tokens + layers[0].slots, device=q.device)
    for layer in layers:
        cache = (layer.prefix_k, layer.prefix_v, layer.own_k, layer.own_v)
        attend_to_cache(q, q, q, cache, model.slot_B[:, None], bias)


def deviation(reference_V: Tensor, logits_V: Tensor) -> dict[str, float]:
    """Of logits (..., V) from others: relative to their spread, and how often the largest is the same one."""
    difference = logits_V - reference_V
    spread = reference_V.std(-1, keepdim=True)
    return {
        "typical": float((difference / spread).square().mean().sqrt()),
        "largest": float((difference / spread).abs().max()),
        "same_maximum": float((reference_V.argmax(-1) == logits_V.argmax(-1)).float().mean()),
    }


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
