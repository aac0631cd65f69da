"""`python -m benchmarks.speed metrics`: the seven PIE-Bench columns, the released evaluator's way against ours.

Both ways score the same edits in one run, in turns, so that a busy machine disturbs them alike.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.speed.measure import SpeedSettings, ensure_weights, in_words, report_speed, table, take_turns
from benchmarks.speed.released_evaluator import ReleasedEvaluator
from benchmarks.tools.random_weights import write_official_layout
from metrics.networks.backbones import PRECISIONS
from metrics.networks.official_backbones import official_backbones
from metrics.protocols.pie_bench import PIE_BENCH_COLUMNS, PieBenchScorer
from metrics.scores import Scores

SIDE = 512
RELEASED = "released evaluator"
# Under the random weights these prompts are similar to every image, so that CLIP's floor at 0 hides no deviation.
PROMPTS = ("red hills", "red")
Values = dict[str, list[dict[str, float]]]  # method to one row of columns per image


@dataclass(frozen=True, kw_only=True)
class MetricsSpeed(SpeedSettings):
    """Example: python -m benchmarks.speed metrics

    Images and methods per second of both implementations, and how far bfloat16 networks move each column.
    """

    weights: Path = Path("runs/speed/weights")
    """Folder with the official files; made with random weights (2 GB) where it does not exist."""
    images: int = 2
    """Source images per round, all scored in one batch by ours."""
    methods: int = 3
    device: str = "cpu"
    """Of both ways."""
    rounds: int = 3
    """Timed rounds after one that warms up; the median counts."""
    seed: int = 0

    def run(self) -> None:
        report_speed(self, lambda: measure(self), report)


@dataclass(frozen=True)
class Workload:
    """Square images (B, 3, H, W) in [0, 1], masks (B, 1, H, W) bool; nothing repeats, so nothing can be skipped."""

    sources: Tensor
    masks: Tensor
    prompts: list[str]
    edited: dict[str, Tensor]


def make_workload(images: int, methods: int, seed: int, side: int = SIDE) -> Workload:
    """Smooth coloured scenes; each edit repaints an ellipse, the mask, and adds faint noise around it."""
    generator = torch.Generator().manual_seed(seed)

    def scene() -> Tensor:
        coarse = torch.rand(images, 3, 8, 8, generator=generator)
        fine = torch.rand(images, 3, side, side, generator=generator)
        return 0.85 * F.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1) + 0.15 * fine

    def eight_bit(x: Tensor) -> Tensor:
        return (x.clamp(0, 1) * 255).round() / 255

    axis = torch.linspace(-1, 1, side)
    shapes = 0.3 + 0.5 * torch.rand(images, 2, 1, 1, generator=generator)
    masks = ((axis[:, None] / shapes[:, 0]) ** 2 + (axis / shapes[:, 1]) ** 2 < 1)[:, None]
    masks[..., [0, -1], :] = True
    masks[..., [0, -1]] = True
    sources = eight_bit(scene())
    edited = {}
    for m in range(methods):
        noise = 0.02 * torch.randn(images, 3, side, side, generator=generator)
        edited[f"method {m + 1}"] = eight_bit(torch.where(masks, scene(), sources + noise))
    return Workload(sources, masks, [PROMPTS[i % len(PROMPTS)] for i in range(images)], edited)


def measure(settings: MetricsSpeed) -> dict[str, Any]:
    """Seconds per image and method of each way (the median over the rounds), ratios, and deviations."""
    weights = ensure_weights(settings.weights, write_official_layout)
    work = make_workload(settings.images, settings.methods, settings.seed)
    ways: dict[str, Callable[[], Values]] = {RELEASED: _released_way(weights, work, settings.device)}
    for precision in PRECISIONS:
        ways[f"ours, {precision}"] = _our_way(weights, precision, work, settings.device)
    values = {way: score() for way, score in ways.items()}

    def seconds_of(score: Callable[[], Values]) -> float:
        start = time.perf_counter()
        score()
        return (time.perf_counter() - start) / settings.images / settings.methods

    seconds = take_turns({way: partial(seconds_of, score) for way, score in ways.items()}, settings.rounds)
    typical = {way: statistics.median(times) for way, times in seconds.items()}
    return {
        "seconds": seconds,
        "images_methods_per_second": {way: 1 / value for way, value in typical.items()},
        "ratio": {way: typical[RELEASED] / value for way, value in typical.items()},
        "deviation": {
            "ours, float32 from the released evaluator": deviations(values[RELEASED], values["ours, float32"]),
            "ours, bfloat16 from float32": deviations(values["ours, float32"], values["ours, bfloat16"]),
        },
    }


def _released_way(weights: Path, work: Workload, device: str) -> Callable[[], Values]:
    evaluator = ReleasedEvaluator(weights, device)

    def pixels(image: Tensor) -> Any:
        return (image * 255).round().byte().permute(1, 2, 0).numpy()

    masks = [mask[0].double().numpy()[:, :, np.newaxis].repeat(3, axis=2) for mask in work.masks]
    sources = [pixels(image) for image in work.sources]
    edited = {method: [pixels(image) for image in images] for method, images in work.edited.items()}

    def score() -> Values:
        values: Values = {method: [] for method in edited}
        for i, source in enumerate(sources):
            for method, images in edited.items():
                row = evaluator.score(source, images[i], masks[i], work.prompts[i])
                values[method].append({c: row[c] / 100 if c.startswith("clip") else row[c] for c in PIE_BENCH_COLUMNS})
        return values

    return score


def _our_way(weights: Path, precision: str, work: Workload, device: str) -> Callable[[], Values]:
    scorer = PieBenchScorer(official_backbones(weights, device, precision), precision)

    def numbers(scores: Scores) -> dict[str, float]:
        return {name: math.nan if isinstance(score, str) else score for name, score in scores.items()}

    def score() -> Values:
        scores = scorer.score(work.sources, work.masks, work.prompts, work.edited)
        return {method: list(map(numbers, own)) for method, own in scores.items()}

    return score


def deviations(reference: Values, other: Values) -> dict[str, dict[str, float]]:
    """Per column, over all images and methods: the largest absolute difference, the difference of the means, and
    both as shares of the reference's mean."""
    from pandas import DataFrame

    a, b = (DataFrame([row for rows in values.values() for row in rows]) for values in (reference, other))
    means = [frame.mean(skipna=False) for frame in (a, b)]
    moved = DataFrame({"largest": (b - a).abs().max(skipna=False), "of_the_mean": (means[1] - means[0]).abs()})
    relative = {f"{name}_relative": moved[name] / means[0].abs().replace(0, math.nan) for name in moved}
    return moved.assign(**relative).loc[list(PIE_BENCH_COLUMNS)].to_dict("index")


def report(figures: dict[str, Any]) -> str:
    """The figures as text."""
    rates = figures["images_methods_per_second"]
    seconds = {way: 1 / rate for way, rate in rates.items()}
    columns = {"s per image and method": seconds, "images x methods per s": rates, "ratio": figures["ratio"]}
    lines = [f"PIE-Bench columns: {in_words(figures['settings'])}"]
    lines.append(table(columns, dict(zip(columns, (".2f", ".3f", ".2f"), strict=True))))
    formats = {"largest": ".3e", "largest_relative": ".1e", "of_the_mean": ".3e", "of_the_mean_relative": ".1e"}
    for title, rows in figures["deviation"].items():
        columns = {name: {column: row[name] for column, row in rows.items()} for name in formats}
        lines += ["", f"{title}:", table(columns, formats)]
    return "\n".join(lines)
