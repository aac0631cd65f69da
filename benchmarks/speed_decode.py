"""`python -m benchmarks.speed decode`: a token at the paper's size, against a plain cached decoder and the memory.

Random weights; the time of a token does not depend on their values. Tokens are timed at several positions of the
sequence, for the cache grows along it. The plain decoder takes turns with ours, so that a busy machine disturbs both.
"""

import dataclasses
import platform
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.decode_cost import (
    deviation,
    matrix_vector_bandwidth,
    parts,
    seconds,
    step_seconds,
    token_bytes,
    weight_bytes,
)
from benchmarks.decode_memory import decoding_peak
from benchmarks.decode_report import report
from benchmarks.plain_decoder import PlainDecoder
from benchmarks.speed_run import machine, report_speed
from editar.cached import CachedTransformer
from editar.config import SIZES, SamplingConfig, TransformerConfig
from editar.decoding import Batch, Decoder
from editar.int8 import quantise
from editar.sampling import guide
from editar.transformer import EditARTransformer

PUBLISHED = SamplingConfig()
PLAIN, OURS = "plain decoder, ", "ours, "


@dataclass(frozen=True, kw_only=True)
class DecodeSpeed:
    """Seconds and bytes a token of both decoders, the ratio to the memory's limit, and how the cost grows."""

    size: str = "XL"
    grid: int = 32
    """Tokens along one side: 32 for 512 pixels."""
    tokens: int = 8
    """Timed at each position, after two that warm up."""
    positions: int = 4
    compared: int = 16
    """Tokens of which the logits are compared with float32's."""
    widths: tuple[int, ...] = (1, 2, 4, 8)
    """Images decoded together, in the table of how the cost grows."""
    grids: tuple[int, ...] = (16, 32, 48)
    """Resolutions in it: 256, 512 and 768 pixels."""
    threads: int = 2
    device: str = "cpu"
    seed: int = 0
    out: Path | None = None
    """Write the figures as JSON to this file too."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"--size is {self.size!r}; choose one of {', '.join(SIZES)}")

    @property
    def config(self) -> TransformerConfig:
        return dataclasses.replace(SIZES[self.size], grid=self.grid)

    def run(self) -> None:
        report_speed(self, lambda: measure(self, self.config), report)


@torch.no_grad()
def measure(settings: DecodeSpeed, config: TransformerConfig) -> dict[str, Any]:
    """All figures: per way seconds and bytes a token; parts; deviations of the logits; the table of the cost."""
    device = torch.device(settings.device)
    model = random_model(config, device, settings.seed)
    work = Work.random(config, settings.compared, device, settings.seed)
    places = positions(config, settings.positions, settings.tokens)
    ways: dict[str, Any] = {}
    bandwidths = [matrix_vector_bandwidth(device)]
    print("float32", flush=True)
    plain = PlainDecoder(model, 1, PUBLISHED)
    ways[PLAIN + "float32"] = _way(_plain_seconds(plain, places, settings.tokens))
    del plain
    prefill, reference = work.logits(model)
    ways[OURS + "float32"] = _way(_our_seconds(model, places, settings.tokens), model, places, prefill)
    print("bfloat16", flush=True)
    model.to(torch.bfloat16)
    plain, batch = PlainDecoder(model, 1, PUBLISHED), Batch(model, 1, PUBLISHED)
    turns = [(_plain_seconds(plain, [p], settings.tokens), step_seconds(batch, [p], settings.tokens)) for p in places]
    prefill = seconds(partial(plain.prefill, work.condition_BN, work.text_BLE), device, rounds=0)
    ways[PLAIN + "bfloat16"] = _way([s for pair in turns for s in pair[0]], prefill=prefill)
    del plain
    prefill, logits = work.logits(model)
    deviations = {"bfloat16": deviation(reference, logits)}
    ways[OURS + "bfloat16"] = _way([s for pair in turns for s in pair[1]], model, places, prefill)
    ways[OURS + "bfloat16"]["parts"] = parts(batch, places, PUBLISHED)
    del batch
    bandwidths.append(matrix_vector_bandwidth(device))
    images = whole_images(model, work, settings) if device.type == "cuda" else []
    print("batches and resolutions", flush=True)
    growth = [cell(with_grid(model, grid), width, settings) for grid in settings.grids for width in settings.widths]
    if device.type == "cpu":
        print("int8", flush=True)
        quantise(model)
        batch = Batch(model, 1, PUBLISHED)
        prefill, logits = work.logits(model)
        deviations["bfloat16, int8 weights"] = deviation(reference, logits)
        taken = step_seconds(batch, places, settings.tokens)
        ways[OURS + "bfloat16, int8 weights"] = _way(taken, model, places, prefill)
        ways[OURS + "bfloat16, int8 weights"]["parts"] = parts(batch, places, PUBLISHED)
        bandwidths.append(matrix_vector_bandwidth(device))
    return {
        "machine": _machine(device),
        "settings": asdict(settings),
        "sequence": [config.image_tokens, config.text_length, config.image_tokens],
        "positions": places,
        "matrix_vector_bytes_per_second": bandwidths,
        "ways": ways,
        "deviations": deviations,
        "growth": growth,
        "whole_images": images,
    }


@dataclass(frozen=True, kw_only=True)
class Work:
    """One image's condition and text, and the target tokens that are fed for the comparison of logits."""

    condition_BN: Tensor
    text_BLE: Tensor
    fed_N: Tensor

    @classmethod
    def random(cls, config: TransformerConfig, fed: int, device: torch.device, seed: int) -> "Work":
        generator = torch.Generator().manual_seed(seed)
        condition, target = torch.randint(0, config.vocab_size, (2, 1, config.image_tokens), generator=generator)
        text = torch.randn(1, config.text_length, config.text_dim, generator=generator)
        return cls(
            condition_BN=condition.to(device), text_BLE=text.to(device), fed_N=target[0, : min(fed, 64)].to(device)
        )

    @torch.inference_mode()
    def logits(self, model: EditARTransformer) -> tuple[float, Tensor]:
        """Seconds of the prefill, and the guided logits of the first tokens, (1 + fed, V)."""
        cached = CachedTransformer(model, images=1, rows_each=2)
        null = torch.tensor([False, True], device=self.text_BLE.device)
        start = time.perf_counter()
        steps = [cached.prefill(self.condition_BN, self.text_BLE.repeat(2, 1, 1), null)]
        float(steps[0][0, 0])  # waits for the device
        prefill = time.perf_counter() - start
        for index, token in enumerate(self.fed_N):
            cached.make_room(index)
            steps.append(cached.decode_one(token.repeat(2)))
        return prefill, torch.cat([guide(step, PUBLISHED.guidance) for step in steps])


def random_model(config: TransformerConfig, device: torch.device, seed: int) -> EditARTransformer:
    """LlamaGen's initial weights in float32, the output layer's too, which would otherwise predict nothing."""
    with torch.device("meta"):
        model = EditARTransformer(config)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("norm.weight"):
            tensor.fill_(1)
        else:
            tensor.normal_(std=config.initial_std, generator=generator)
    return model.eval()


def with_grid(model: EditARTransformer, grid: int) -> EditARTransformer:
    """The same weights for images of another size: only the null image, which decoding does not use, depends on it."""
    with torch.device("meta"):
        other = EditARTransformer(dataclasses.replace(model.config, grid=grid))
    weights = {name: value for name, value in model.state_dict().items() if name != "img_uncond_embedding"}
    other.load_state_dict(weights, assign=True, strict=False)
    return other.eval()


def positions(config: TransformerConfig, count: int, tokens: int) -> list[int]:
    """Numbers of fed tokens, the middles of as many equal shares of the sequence."""
    share = config.image_tokens / count
    return [min(int(share * (i + 0.5)), config.image_tokens - tokens - 3) for i in range(count)]


def cell(model: EditARTransformer, width: int, settings: DecodeSpeed) -> dict[str, float | None]:
    """One cell of the table: seconds of a step and bytes, as far as they can be known, and as they are."""
    config = model.config
    places = positions(config, 2, settings.tokens // 2)
    peak = decoding_peak(model, width, PUBLISHED)
    taken = step_seconds(Batch(model, width, PUBLISHED), places, settings.tokens // 2)
    itemsize = model.tok_embeddings.weight.dtype.itemsize
    return {
        "pixels": config.grid * 16,
        "width": width,
        "token_bytes": sum(token_bytes(model, width, 2, p) for p in places) / len(places),
        "seconds": sum(taken) / len(taken),
        "tokens": config.image_tokens,
        "weights": weight_bytes(model),
        "cache": width * itemsize * config.cached_numbers(rows=2),
        "peak": peak,
    }


def whole_images(model: EditARTransformer, work: Work, settings: DecodeSpeed) -> list[dict[str, float]]:
    """Seconds of decoding, the prefill included, of one block of images at each width, after compiling."""
    result = []
    for width in settings.widths:
        decoder = Decoder(model)
        start = time.perf_counter()
        decoder.warm_up(width, PUBLISHED)
        warm = time.perf_counter() - start
        condition, text = work.condition_BN.repeat(width, 1), work.text_BLE.repeat(width, 1, 1)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            decoder.generate(condition, text, range(width), PUBLISHED, width=width).cpu()
            times.append(time.perf_counter() - start)
        result.append({"width": width, "warm_up": warm, "seconds": sorted(times)[1]})
    return result


@torch.inference_mode()
def _plain_seconds(plain: PlainDecoder, places: list[int], tokens: int) -> list[float]:
    token = torch.zeros(1, 1, dtype=torch.int64, device=plain.keys.device)
    result = []
    for place in places:
        token = plain.step(token, place)
        start = time.perf_counter()
        for fed in range(place + 1, place + 1 + tokens):
            token = plain.step(token, fed)
        float(token)
        result.append((time.perf_counter() - start) / tokens)
    return result


def _our_seconds(model: EditARTransformer, places: list[int], tokens: int) -> list[float]:
    return step_seconds(Batch(model, 1, PUBLISHED), places, tokens)


def _way(
    taken: list[float],
    model: EditARTransformer | None = None,
    places: list[int] | None = None,
    prefill: float | None = None,
) -> dict[str, Any]:
    result: dict[str, Any] = {"seconds_at": taken, "seconds": sum(taken) / len(taken), "prefill": prefill}
    if model is not None and places:
        result["bytes"] = sum(token_bytes(model, 1, 2, p) for p in places) / len(places)
    return result


def _machine(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {**machine(), "device": name}
