"""The first steps of the miniature's training with the trainer of today, beside those behind the committed weights.

    python -m benchmarks.miniature.build --stages encoder refining tokens     what it trains on
    python -m benchmarks.miniature.train.training_curves

The committed curve of the first stage (`weights/curves/transformer.jsonl`) was written by the loop that the build had
before there was a trainer. Seed, data and settings are the same, so the curves differ by how the arithmetic is rounded,
which hangs on the machine and its threads, or the trainer is another one.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from benchmarks.miniature.paths import BUILD, WEIGHTS
from benchmarks.miniature.train import tokenizer, transformer

NAME = "training-curves"
COLUMNS = ("loss", "gradient_norm")
Curve = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train the miniature's first steps and compare."""

    steps: int = 100
    """How many; at least 100, in which the learning rate rises."""
    build: Path = BUILD
    """The build's folder with the tokenizer and the token shards."""
    folder: Path = Path("runs") / "train" / "miniature-first-steps"
    """The run's; it goes on where it stopped."""
    out: Path = Path("reports") / "miniature"
    """Folder for training-curves.csv and .png."""
    threads: int = 1


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    centroids = tokenizer.codebook(arguments.build / "tokenizer")["centroids"]
    transformer.train_transformer(arguments.build / "tokens", centroids, arguments.folder, steps=arguments.steps)
    before = read_curve(WEIGHTS / "curves" / "transformer.jsonl")
    after = read_curve(arguments.folder / "metrics.jsonl")
    print(compare(before, after, arguments.out))


def read_curve(path: Path) -> dict[int, dict[str, float]]:
    """A metrics.jsonl by step."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {int(line["step"]): line for line in lines}


def compare(before: Curve, after: Curve, out: Path) -> str:
    """Write the steps that both curves have as CSV and plot into `out`; returns their largest difference in words."""
    steps = sorted(before.keys() & after.keys())
    if not steps:
        raise ValueError("the curves have no step in common; take more --steps")
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{NAME}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *(f"{name}_{when}" for name in COLUMNS for when in ("before", "after"))])
        for step in steps:
            writer.writerow([step, *(curve[step][name] for name in COLUMNS for curve in (before, after))])
    _plot(steps, before, after, out / f"{NAME}.png")
    largest = max(abs(before[step]["loss"] - after[step]["loss"]) for step in steps)
    return f"{len(steps)} points up to step {steps[-1]}: the losses differ by {largest:.2g} at most"


def _plot(steps: Sequence[int], before: Curve, after: Curve, path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(COLUMNS), figsize=(8, 3), dpi=100, layout="constrained")
    for axis, name in zip(axes, COLUMNS, strict=True):
        axis.plot(steps, [before[step][name] for step in steps], color="0.7", lw=5, label="former loop")
        axis.plot(steps, [after[step][name] for step in steps], color="tab:blue", lw=1.5, label="trainer")
        axis.set(xlabel="step", title=name.replace("_", " "))
    axes[0].legend()
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
