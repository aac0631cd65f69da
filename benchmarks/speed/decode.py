"""`python -m benchmarks.speed decode`: a token at the paper's size, against a plain cached decoder and the memory.

Random weights; the time of a token does not depend on their values. Tokens are timed at several positions of the
sequence, for the cache grows along it. All ways of one dtype take turns with the memory test, so that a busy machine
disturbs all of them; two dtypes together would take 12 GB.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.speed.decode_cost import (
    STEP,
    bandwidth,
    decoding_peak,
    deviation,
    parts,
    seconds,
    step_seconds,
    timed_steps,
    token_bytes,
    weight_bytes,
)
from benchmarks.speed.drafts import PUBLISHED, TOKENS_A_PASS, image_seconds, miniature, pass_seconds
from benchmarks.speed.measure import SpeedSettings, in_words, report_speed, table, take_turns
from benchmarks.speed.plain_decoder import PlainDecoder
from editar.config import SIZES, TransformerConfig
from editar.decoding.cpu.linear import Int8Linear, PackedLinear, can_pack, pack
from editar.decoding.decoder import Batch, Decoder
from editar.decoding.forward import CachedTransformer
from editar.decoding.sampling import guide
from editar.devices import require_device
from editar.model.transformer import EditARTransformer

PLAIN, OURS, MEMORY = "plain decoder, ", "ours, ", "memory"


@dataclass(frozen=True, kw_only=True)
class DecodeSpeed(SpeedSettings):
    """Example: python -m benchmarks.speed decode --size XL

    Seconds and bytes a token of both decoders, the ratio to the memory's limit, and how the cost grows.
    """

    size: str = "XL"
    grid: int = 32
    """Tokens along one side: 32 for 512 pixels."""
    tokens: int = 4
    """Timed at each position of each round, after two that warm up."""
    positions: int = 4
    rounds: int = 3
    """At each position all ways take turns so often; the medians count."""
    windows: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Places of a pass, in the tables of several tokens a pass."""
    drawn: int = 8
    """Images of each task of the miniature that are drawn with several tokens a pass; 0: none."""
    compared: int = 16
    """Tokens of which the logits are compared with float32's."""
    widths: tuple[int, ...] = (1, 2, 4, 8)
    """Images decoded together, in the table of how the cost grows."""
    grids: tuple[int, ...] = (16, 32, 48)
    """Resolutions in it: 256, 512 and 768 pixels."""
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        require_device(self.device)
        if self.size not in SIZES:
            raise ValueError(f"--size is {self.size!r}; choose one of {', '.join(SIZES)}")
        if 1 not in self.windows:
            raise ValueError(f"--windows is {self.windows}; 1 must be in it, to which the others are compared")

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
    turns = partial(at_places, places=places, settings=settings, device=device)
    model32 = laid_out(model, config.grid)
    ways, bandwidths = turns(
        {
            PLAIN + "float32": partial(plain_seconds, PlainDecoder(model, 1, PUBLISHED)),
            OURS + "float32": partial(step_seconds, Batch(model32, 1, PUBLISHED)),
        }
    )
    prefill, reference = work.logits(model32)
    ways[OURS + "float32"] |= {"prefill": prefill, "bytes": mean_bytes(model32, places)}
    del model32
    model.to(torch.bfloat16)
    ours = {"bfloat16": laid_out(model, config.grid)}
    if can_pack(model):
        ours["bfloat16, int8 weights"] = laid_out(model, config.grid, Int8Linear)
    plain = PlainDecoder(model, 1, PUBLISHED)
    others, more = turns(
        {
            PLAIN + "bfloat16": partial(plain_seconds, plain),
            **{OURS + name: partial(step_seconds, Batch(m, 1, PUBLISHED)) for name, m in ours.items()},
        }
    )
    ways, bandwidths = ways | others, bandwidths + more
    prefill = seconds(partial(plain.prefill, work.condition_BN, work.text_BLE), device, rounds=0)
    ways[PLAIN + "bfloat16"]["prefill"] = prefill
    del plain
    deviations = {}
    for name, m in ours.items():
        prefill, logits = work.logits(m)
        deviations[name] = deviation(reference, logits)
        ways[OURS + name] |= {"prefill": prefill, "bytes": mean_bytes(m, places)}
        ways[OURS + name]["parts"] = parts(Batch(m, 1, PUBLISHED), places, PUBLISHED, settings.rounds)
        ways[OURS + name]["passes"] = pass_seconds(
            m, settings.windows, places[1:-1] or places, settings.tokens, settings.rounds
        )
    images = whole_images(ours["bfloat16"], work, settings) if device.type == "cuda" else []
    del ours
    print("batches and resolutions", flush=True)
    growth = [cell(laid_out(model, grid), width, settings) for grid in settings.grids for width in settings.widths]
    return {
        "sequence": [config.image_tokens, config.text_length, config.image_tokens],
        "positions": places,
        "bandwidths": bandwidths,
        "ways": ways,
        "deviations": deviations,
        "growth": growth,
        "whole_images": images,
        "drafts": miniature(settings.drawn, settings.windows) if settings.drawn else [],
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


def laid_out(
    model: EditARTransformer, grid: int, make: Callable[[Tensor], nn.Module] = PackedLinear
) -> EditARTransformer:
    """The same weights as a pipeline has them for decoding, for images of any size: only the null image, which decoding
    does not use, depends on it."""
    with torch.device("meta"):
        other = EditARTransformer(dataclasses.replace(model.config, grid=grid))
    weights = {name: value for name, value in model.state_dict().items() if name != "img_uncond_embedding"}
    other.load_state_dict(weights, assign=True, strict=False)
    if can_pack(other):
        pack(other, make)
    return other.eval()


def positions(config: TransformerConfig, count: int, tokens: int) -> list[int]:
    """Numbers of fed tokens, the middles of as many equal shares of the sequence."""
    share = config.image_tokens / count
    return [min(int(share * (i + 0.5)), config.image_tokens - tokens - 3) for i in range(count)]


def cell(model: EditARTransformer, width: int, settings: DecodeSpeed) -> dict[str, float | None]:
    """One cell of the table: seconds of a step and bytes, as far as they can be known, and as they are."""
    config = model.config
    places = positions(config, 2, settings.tokens)
    peak = decoding_peak(model, width, PUBLISHED)
    taken = [step_seconds(Batch(model, width, PUBLISHED), place, settings.tokens) for place in places]
    itemsize = model.tok_embeddings.weight.dtype.itemsize
    return {
        "pixels": config.grid * 16,
        "width": width,
        "token_bytes": mean_bytes(model, places, width),
        "seconds": sum(taken) / len(taken),
        "tokens": config.image_tokens,
        "weights": weight_bytes(model),
        "cache": width * itemsize * config.cached_numbers(rows=2),
        "peak": peak,
    }


def whole_images(model: EditARTransformer, work: Work, settings: DecodeSpeed) -> list[dict[str, float]]:
    """Seconds of decoding, the prefill included, of one block of images at each width, after compiling."""
    device = torch.device(settings.device)
    result = []
    for width in settings.widths:
        decoder = Decoder(model)
        warm = seconds(partial(decoder.warm_up, width, PUBLISHED), device, rounds=0)
        condition, text = work.condition_BN.repeat(width, 1), work.text_BLE.repeat(width, 1, 1)
        generate = partial(decoder.generate, condition, text, range(width), PUBLISHED, width=width)
        result.append({"width": width, "warm_up": warm, "seconds": seconds(generate, device, rounds=3)})
    return result


def mean_bytes(model: EditARTransformer, places: list[int], images: int = 1) -> float:
    """Of a step of so many images with guidance."""
    return sum(token_bytes(model, images, 2, place) for place in places) / len(places)


def at_places(
    timed: dict[str, Callable[[int, int], float]], places: list[int], settings: DecodeSpeed, device: torch.device
) -> tuple[dict[str, dict[str, Any]], list[dict[str, float]]]:
    """Seconds a token of each way, by position the median of the rounds, and the memory's bandwidth beside it.

    timed: from a position and a number of tokens to seconds a token.
    """
    turns: list[dict[str, list[Any]]] = []
    for place in tqdm(places, desc="positions"):
        ways_here: dict[str, Callable[[], Any]] = {MEMORY: partial(bandwidth, device)}
        ways_here |= {name: partial(seconds_of, place, settings.tokens) for name, seconds_of in timed.items()}
        turns.append(take_turns(ways_here, settings.rounds))
    ways: dict[str, dict[str, Any]] = {}
    for name in timed:
        rounds = [turn[name] for turn in turns]
        seconds_at = [median(times) for times in rounds]
        ways[name] = {"seconds_at": seconds_at, "seconds": sum(seconds_at) / len(places), "rounds": rounds}
    return ways, [measured for turn in turns for measured in turn[MEMORY]]


@torch.inference_mode()
def plain_seconds(plain: PlainDecoder, place: int, tokens: int) -> float:
    token = torch.zeros(1, 1, dtype=torch.int64, device=plain.keys.device)

    def step(fed: int) -> None:
        nonlocal token
        token = plain.step(token, fed)

    return timed_steps(step, place, tokens, token.device)


def report(figures: dict[str, Any]) -> str:
    """The figures as text."""
    limit, reading = (median(b[name] for b in figures["bandwidths"]) for name in ("product", "reading"))
    plain, plain32 = (figures["ways"][PLAIN + dtype]["seconds"] for dtype in ("bfloat16", "float32"))
    lines = [
        f"positions {figures['sequence']}, guidance 3, one image; {in_words(figures['settings'])}; "
        f"{figures['machine']['device']}",
        f"plain bfloat16 matrix-vector product, the limit below: {limit / 1e9:.1f} GB/s; "
        f"reading: {reading / 1e9:.1f} GB/s",
    ]

    def add(title: str, rows: Mapping[Any, Mapping[str, float]], formats: Mapping[str, str]) -> None:
        columns = {name: {key: row[name] for key, row in rows.items() if name in row} for name in formats}
        lines.extend(["", title, table(columns, formats)])

    ways = {
        name: {
            "prefill s": way.get("prefill", math.nan),
            "ms a token": way["seconds"] * 1e3,
            "GB a token": way.get("bytes", math.nan) / 1e9,
            "GB/s": way.get("bytes", math.nan) / way["seconds"] / 1e9,
            "of limit": way.get("bytes", math.nan) / way["seconds"] / limit,
            "to plain": plain / way["seconds"],
            "to float32": plain32 / way["seconds"],
        }
        for name, way in figures["ways"].items()
    }
    formats = {"prefill s": ".1f", "ms a token": ".1f", "GB a token": ".2f", "GB/s": ".1f", "of limit": ".0%"}
    add("seconds and bytes a token:", ways, {**formats, "to plain": ".2f", "to float32": ".2f"})
    for name, way in figures["ways"].items():
        if taken := way.get("parts"):
            taken = {**taken, "rest (norms, rotations, sums)": 2 * taken[STEP] - sum(taken.values())}
            rows = {part: {"ms": value * 1e3, "share": value / taken[STEP]} for part, value in taken.items()}
            add(f"{name}:", rows, {"ms": ".1f", "share": ".0%"})
    for name, way in figures["ways"].items():
        if passes := way.get("passes"):
            images = image_seconds(passes, way["prefill"], figures["sequence"][2])
            rows = {
                f"{window} places": {
                    "ms a pass": passes[window] * 1e3,
                    "to 1, and tokens to break even": passes[window] / passes[1],
                    **{f"s an image at {given}": second for given, second in images[window].items()},
                }
                for window in passes
            }
            formats = {"ms a pass": ".1f", "to 1, and tokens to break even": ".2f"}
            formats |= {f"s an image at {given}": ".1f" for given in TOKENS_A_PASS}
            add(f"{name}, several tokens a pass (seconds by how many the guesses give):", rows, formats)
    if drafts := figures["drafts"]:
        one = {(row["task"], row["sampling"]): row["seconds"] for row in drafts if row["window"] == 1}
        rows = {
            f"{row['task']}, {row['sampling']}, {row['guess']}, {row['window']} places": {
                "tokens a pass": row["tokens"],
                "CPU s an image": row["seconds"],
                "faster than 1 place": one[row["task"], row["sampling"]] / row["seconds"],
            }
            for row in drafts
        }
        formats = {"tokens a pass": ".2f", "CPU s an image": ".3f", "faster than 1 place": ".2f"}
        add("the miniature, several tokens a pass (same tokens; a released model's guesses give fewer):", rows, formats)
    formats = {"typical": ".2%", "largest": ".2%", "same_maximum": ".0%"}
    add("guided logits, from float32:", figures["deviations"], formats)
    growth = {
        f"{c['pixels']:.0f} pixels, {c['width']:.0f} images": {
            "ms a step": c["seconds"] * 1e3,
            "predicted ms": c["token_bytes"] / reading * 1e3,
            "s an image": c["seconds"] * c["tokens"] / c["width"],
            "predicted s": c["token_bytes"] / reading * c["tokens"] / c["width"],
            "peak GB": math.nan if c["peak"] is None else (c["weights"] + c["peak"]) / 1e9,
            "predicted GB": (c["weights"] + c["cache"]) / 1e9,
        }
        for c in figures["growth"]
    }
    title = (
        "growth (predicted: the time to read a step's bytes; the weights and the whole cache. Peak: the weights, and "
        "what decoding took besides, the prefill included):"
    )
    add(title, growth, {**dict.fromkeys(next(iter(growth.values())), ".1f"), "peak GB": ".2f", "predicted GB": ".2f"})
    if whole := {row["width"]: {**row, "images/s": row["width"] / row["seconds"]} for row in figures["whole_images"]}:
        add("whole images, by how many at a time:", whole, {"seconds": ".2f", "images/s": ".2f", "warm_up": ".0f"})
    return "\n".join(lines)
