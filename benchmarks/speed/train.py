"""`python -m benchmarks.speed train`: samples per second of the trainer.

On a CPU: the miniature, trained on pairs of its world, against the loop that one writes first: images decoded and
encoded for every step, float32 throughout, the optimiser as it comes. Both take turns in one run. On a GPU: the paper's
GPT-XL with random weights on sequences of 2167 tokens, as a share of what the device can do.
"""

import copy
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.miniature import WEIGHTS
from benchmarks.miniature.world.edits import random_edit
from benchmarks.miniature.world.render import render
from benchmarks.speed.measure import SpeedSettings, in_words, report_speed, table, take_turns
from editar.config import SIZES, TransformerConfig
from editar.images import open_image, to_tensor
from editar.model.checkpoint import read_model
from editar.model.files import Parts
from editar.model.transformer import EditARTransformer
from editar.training.checkpoints import Run
from editar.training.data.mixture import DataConfig, Source, loader
from editar.training.distributed import Group
from editar.training.loop import TrainConfig, Values, train
from editar.training.start import checkpoint_activations, compile_layers, frozen
from editar.training.token_cache import TokenCache
from editar.training.train import Objective, Stream, Student, work

NAIVE, OURS, CACHED = "naive loop", "ours", "ours, cached tokens"


@dataclass(frozen=True, kw_only=True)
class TrainSpeed(SpeedSettings):
    """Example: python -m benchmarks.speed train --device cpu --threads 1 --batch 16 --steps 4

    Samples per second of training.
    """

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu: the miniature, against a naive loop; cuda: a model of the published size."""
    weights: Path = WEIGHTS / "editar"
    """On a CPU: folder of the model that is trained on."""
    size: Literal["B", "L", "XL", "XXL", "3B"] = "XL"
    """On a GPU: of the model."""
    batch: int = 32
    """Samples of a step."""
    steps: int = 10
    """In a round; the first round warms up."""
    rounds: int = 3
    """Timed ones, of which the median counts."""
    pairs: int = 96
    """On a CPU: pairs of images, so that they come round again."""
    compiled: bool = True
    """On a GPU: torch.compile of the layers, the trainer's `model.compiled`."""
    activation_checkpointing: bool = False
    """On a GPU: as the trainer's `model.activation_checkpointing`; without it a sample of XL takes about 20 GB by
    the sizes of its tensors (not measured on a GPU)."""
    seed: int = 0

    def run(self) -> None:
        if self.device == "cpu":
            report_speed(self, lambda: measure(self, read_model(self.weights).load()), report)
        else:
            report_speed(self, lambda: measure_device(self, SIZES[self.size]), report_device)


class Nowhere:
    """A store that keeps nothing: writing is not what is measured."""

    def exists(self) -> bool:
        return False

    def save(self, run: Run) -> None:
        pass

    def load(self, run: Run) -> None:
        raise AssertionError("nothing was saved")


def write_pairs(folder: Path, count: int, seed: int) -> Path:
    """Edits of the miniature's world as one's own pairs are laid out."""
    lines = []
    for i in range(count):
        edit = random_edit(np.random.default_rng((seed, i)))
        names = {"source": f"{i}-source.png", "target": f"{i}-target.png"}
        for name, scene in zip(names.values(), (edit.source, edit.target), strict=True):
            Image.fromarray(render(scene)).save(folder / name)
        lines.append(json.dumps({**names, "instruction": edit.instruction}) + "\n")
    (folder / "pairs.jsonl").write_text("".join(lines))
    return folder


def measure(settings: TrainSpeed, parts: Parts) -> dict[str, Any]:
    """Samples per second of each way, the medians over the rounds."""
    parts = frozen(parts, torch.device("cpu"), torch.float32)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pairs").mkdir()
        pairs = write_pairs(folder / "pairs", settings.pairs, settings.seed)
        cache = TokenCache(folder / "cache", parts.vq)
        runs = (folder / f"run-{number}" for number in itertools.count())
        ways: dict[str, Callable[[], float]] = {
            NAIVE: lambda: naive(settings, parts, pairs),
            OURS: lambda: ours(settings, parts, pairs, next(runs), None),
            CACHED: lambda: ours(settings, parts, pairs, next(runs), cache),
        }
        rates = take_turns(ways, 1 + settings.rounds)
    rate = {name: statistics.median(values[1:]) for name, values in rates.items()}
    return {
        "rounds": rates,
        "samples_per_second": rate,
        "ratio": {name: value / rate[NAIVE] for name, value in rate.items()},
    }


def naive(settings: TrainSpeed, parts: Parts, pairs: Path) -> float:
    """A plain loop: samples per second."""
    model = copy.deepcopy(parts.transformer).train()
    adam = torch.optim.AdamW(model.parameters(), 1e-4, (0.9, 0.95), weight_decay=0.05)
    rows = [json.loads(line) for line in (pairs / "pairs.jsonl").read_text().splitlines()]
    side = model.config.grid * parts.vq.config.downsampling
    rng = np.random.default_rng(settings.seed)
    start = time.perf_counter()
    for _ in range(settings.steps):
        chosen = [rows[i] for i in rng.integers(len(rows), size=settings.batch)]
        with torch.no_grad():
            source, target = (
                parts.vq.encode(torch.stack([to_tensor(open_image(pairs / row[name]), side) for row in chosen]))
                for name in ("source", "target")
            )
            text = parts.text([row["instruction"] for row in chosen])
        r = torch.rand(settings.batch)
        logits = model(source, text, target, r < 0.10, (r < 0.05) | (r > 0.95))
        F.cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
    return settings.steps * settings.batch / (time.perf_counter() - start)


def ours(settings: TrainSpeed, parts: Parts, pairs: Path, out: Path, cache: TokenCache | None) -> float:
    """The trainer: samples per second."""
    group = Group(device=torch.device("cpu"))
    side = parts.transformer.config.grid * parts.vq.config.downsampling
    data = DataConfig(sources=(Source(kind="pairs", folder=pairs),), workers=0, seed=settings.seed)
    stream = Stream(loader(data, side, settings.batch), out, group)
    objective = Objective(parts, None, 0.0, settings.seed, group, cache)
    student = Student(copy.deepcopy(parts.transformer))
    train(student, objective, stream, _config(settings), out, group=group, store=Nowhere())
    return _last_line(out)["samples_per_second"]


def measure_device(settings: TrainSpeed, config: TransformerConfig) -> dict[str, Any]:
    """The last line of each round's log: samples and tokens per second, memory (GB), MFU where the peak is known."""
    device = torch.device(settings.device)
    torch.manual_seed(settings.seed)
    student = Student(EditARTransformer(config).to(device))
    if settings.activation_checkpointing:
        checkpoint_activations(student.transformer)
    if settings.compiled:
        compile_layers(student.transformer)
    tokens = torch.randint(config.vocab_size, (2, settings.batch, config.image_tokens), device=device)
    text = torch.randn(settings.batch, config.text_length, config.text_dim, device=device)

    def loss(student: Student, batch: tuple[Tensor, ...], step: int) -> Values:
        source, target, text = batch
        return student(source, text, target)

    group, cost, batch = Group(device=device), work(config), (tokens[0], tokens[1], text)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(settings.rounds + 1):
            out = Path(folder) / str(round_)
            train(student, loss, lambda _: batch, _config(settings), out, group=group, store=Nowhere(), work=cost)
            lines.append(_last_line(out))
    names = ("samples_per_second", "tokens_per_second", "memory", "mfu")
    medians = {name: statistics.median(line[name] for line in lines[1:]) for name in names if name in lines[-1]}
    return {"model": asdict(config), "rounds": lines, **medians}


def _config(settings: TrainSpeed) -> TrainConfig:
    steps = settings.steps
    return TrainConfig(steps=steps, batch_size=settings.batch, log_every=steps, checkpoint_every=steps)


def _last_line(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def report(figures: dict[str, Any]) -> str:
    """The figures of a CPU as text."""
    formats = {"samples_per_second": ".2f", "ratio": ".2f"}
    return f"training: {in_words(figures['settings'])}\n{table({name: figures[name] for name in formats}, formats)}"


def report_device(figures: dict[str, Any]) -> str:
    """The figures of a GPU as text."""
    settings = figures["settings"]
    share = f"{figures['mfu']:.1%} of the device's peak" if "mfu" in figures else "of a device whose peak is not known"
    return (
        f"training GPT-{settings['size']}: batch {settings['batch']}, {figures['samples_per_second']:.2f} samples and "
        f"{figures['tokens_per_second']:.0f} tokens per second, {share}, {figures.get('memory', 0):.1f} GB"
    )
