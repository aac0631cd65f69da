"""The parts of `python -m benchmarks.gpu_check`: each gives its results one by one.

device: where it computes. tiny: networks of a size for a CPU, else those of the paper, with random weights.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.runs.memory import release, reset_peak
from benchmarks.speed.decode import PUBLISHED, Work, random_model
from benchmarks.speed.decode_cost import decoding_peak, deviation, step_seconds, weight_bytes
from benchmarks.speed.metrics import MetricsSpeed
from benchmarks.speed.metrics import measure as measure_scoring
from benchmarks.speed.train import TrainSpeed, measure_device
from editar.config import SIZES, DraftConfig, SamplingConfig, TransformerConfig, VQConfig
from editar.decoding.decoder import Batch, Decoder
from editar.memory import cache_bytes
from editar.model.transformer import EditARTransformer
from editar.model.vq import VQModel
from metrics.functional.frechet import FeatureSums

TINY = TransformerConfig(layers=2, heads=2, dim=64, vocab_size=96, grid=8, text_length=12, text_dim=16, initial_std=0.3)
TINY_VQ = VQConfig(channels=32, multipliers=(1, 1, 2), res_blocks=1, latent_channels=16, codebook_size=128)
CLOSE = 1e-4  # of float32 results, relative to their spread
WIDTHS, WINDOWS = (1, 32), (1, 8, 4, 16)
Rows = Iterator[dict[str, Any]]


def parity(device: str, tiny: bool) -> Rows:
    """Our networks in float32 against the CPU: numbers close, tokens and sums equal."""
    torch.backends.cudnn.allow_tf32 = False  # PyTorch's default for convolutions keeps 10 bits
    with torch.inference_mode():
        # A few layers of the real width, whose matrices take the same kernels.
        config = TINY if tiny else TransformerConfig(layers=4, heads=20, dim=1280, grid=16, initial_std=0.05)
        here = random_model(config, torch.device("cpu"), seed=0)
        there = copy.deepcopy(here).to(device)
        work = Work.random(config, 8, torch.device("cpu"), seed=0)
        text, condition = work.text_BLE, work.condition_BN
        logits = (model(condition.to(at), text.to(at), condition.to(at)).cpu() for model, at in _places(here, there))
        yield _close("transformer", *logits)
        for settings in (SamplingConfig(temperature=0.0), PUBLISHED):
            for window in (1, 8):
                drafts = DraftConfig(window=window)
                drawn = [
                    Decoder(model).generate(condition.to(at), text.to(at), [0], settings, width=1, drafts=drafts).cpu()
                    for model, at in _places(here, there)
                ]
                same = float((drawn[0] == drawn[1]).float().mean())
                # A tie that rounding breaks another way changes what follows, so that a share is no fault by itself.
                name = f"tokens, {'greedy' if settings.greedy else 'sampled'}, window {window}"
                yield {"result": name, "same as the CPU's": same}
        vq = VQModel(TINY_VQ if tiny else VQConfig()).eval()
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
        vqs = _places(vq, copy.deepcopy(vq).to(device))
        yield _close("tokenizer's latents", *(model.latents(images.to(at)).cpu() for model, at in vqs))
        indices = vq.encode(images)
        yield _close("tokenizer's images", *(model.decode(indices.to(at)).cpu() for model, at in vqs))
        sums = [FeatureSums(64, at) for at in ("cpu", device)]
        features = torch.rand(100, 64, generator=torch.Generator().manual_seed(0)) * 3
        for each in sums:
            each.update(features)
        equal = all(torch.equal(value, sums[1].parts[name].cpu()) for name, value in sums[0].parts.items())
        yield {"result": "FID's sums", "right": equal}


def _places(here: Any, there: Any) -> list[tuple[Any, torch.device]]:
    return [(model, next(model.parameters()).device) for model in (here, there)]


def _close(name: str, expected: Tensor, found: Tensor) -> dict[str, Any]:
    largest = deviation(expected.flatten(), found.flatten())["largest"]
    return {"result": name, "largest deviation": largest, "right": largest < CLOSE}


def _model(device: str, tiny: bool) -> EditARTransformer:
    return random_model(TINY if tiny else SIZES["XL"], torch.device(device), seed=0).bfloat16()


def _middle(model: EditARTransformer) -> int:
    return model.config.image_tokens // 2


def decode(device: str, tiny: bool) -> Rows:
    """Milliseconds of a guided pass in the middle of the image, with CUDA graphs and without."""
    model = _model(device, tiny)
    for width in WIDTHS:
        batch = Batch(model, width, PUBLISHED)
        graphs = batch.graphs is not None
        for with_graphs in (True, False) if graphs else (False,):
            if not with_graphs:
                batch.graphs = None
            seconds = step_seconds(batch, _middle(model), tokens=4 if tiny else 32)
            yield {
                "images": width,
                "graphs": with_graphs,
                "ms a pass": seconds * 1e3,
                "images/s": width / (seconds * model.config.image_tokens),
                "GB/s of weights": weight_bytes(model) / seconds / 1e9,
            }


def windows(device: str, tiny: bool) -> Rows:
    """Milliseconds of a pass over several places, to that over one."""
    model = _model(device, tiny)
    one = 0.0
    for window in WINDOWS:
        batch = Batch(model, 1, PUBLISHED, DraftConfig(window=window))
        seconds = step_seconds(batch, _middle(model), tokens=4 if tiny else 32)
        one = one or seconds
        yield {"window": window, "ms a pass": seconds * 1e3, "to window 1": seconds / one}


def scoring(device: str, tiny: bool) -> Rows:
    """PIE-Bench's columns: the released evaluator's way, and ours in both precisions. tiny: nothing, for its networks
    have one size."""
    if tiny:
        return
    figures = measure_scoring(MetricsSpeed(device=device, images=4, rounds=3))
    for way, ratio in figures["ratio"].items():
        yield {"result": way, "images x methods/s": figures["images_methods_per_second"][way], "ratio": ratio}
    for way, columns in figures["deviation"].items():
        largest = max(columns, key=lambda column: columns[column]["largest_relative"])
        yield {"result": way, "largest relative deviation": columns[largest]["largest_relative"], "column": largest}


def training(device: str, tiny: bool) -> Rows:
    """Training steps: with layers computed again on the way back, plain and then compiled, and a small batch that keeps
    everything."""
    for batch, again, compiled in ((16, True, False), (16, True, True), (2, False, False)):
        reset_peak()
        settings = TrainSpeed(
            device=device, batch=2 if tiny else batch, steps=2 if tiny else 4, rounds=1, activation_checkpointing=again,
            compiled=compiled and not tiny,
        )  # fmt: skip
        figures = measure_device(settings, TINY if tiny else SIZES["XL"])
        release()
        names = ("samples_per_second", "tokens_per_second", "mfu", "memory")
        found = {name: figures[name] for name in names if name in figures}
        yield {"batch": settings.batch, "computed again": again, "compiled": settings.compiled, **found}


def memory(device: str, tiny: bool) -> Rows:
    """GB that decoding takes besides the weights, and what `require_memory` allows for it."""
    model = _model(device, tiny)
    for width in (1, 8):
        peak = decoding_peak(model, width, PUBLISHED)
        allowed = width * cache_bytes(model.config, torch.bfloat16)
        yield {"images": width, "peak GB": None if peak is None else peak / 1e9, "allowed GB": allowed / 1e9}
