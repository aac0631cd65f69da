"""The first steps of the miniature's training with the trainer of today, beside those behind the committed weights.

    python -m benchmarks.miniature.build --stages encoder refining tokens     what it trains on
    python -m benchmarks.miniature.train.training_curves

The committed curve of the first stage (`weights/curves/transformer.jsonl`) was written by the loop that the build had
before there was a trainer. Seed, data and settings are the same, so the curves differ by how the arithmetic is rounded,
which depends on the machine and its threads, or the trainer is another one.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import tyro

from benchmarks.miniature.paths import BUILD, WEIGHTS
from benchmarks.miniature.train import tokenizer, transformer

NAME = "training-curves"
COLUMNS = ("loss", "gradient_norm")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Example: python -m benchmarks.miniature.train.training_curves --steps 100

    Train the miniature's first steps again and compare them with the committed curve.
    """

    steps: int = 100
    """How many; at least 100, in which the learning rate rises."""
    build: Path = BUILD
    """The build's folder with the tokenizer and the token shards."""
    folder: Path = Path("runs") / "train" / "miniature-first-steps"
    """The run's; it goes on where it stopped."""
    out: Path = Path("reports") / "miniature"
    """Folder for training-curves.json and .png."""
    threads: int = 1


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    centroids = tokenizer.codebook(arguments.build / "tokenizer")["centroids"]
    transformer.train_transformer(arguments.build / "tokens", centroids, arguments.folder, steps=arguments.steps)
    before = read_curve(WEIGHTS / "curves" / "transformer.jsonl")
    after = read_curve(arguments.folder / "metrics.jsonl")
    print(compare(before, after, arguments.out))


def read_curve(path: Path) -> pd.DataFrame:
    """A metrics.jsonl by step."""
    return pd.read_json(path, lines=True, precise_float=True).astype({"step": int}).set_index("step")


def compare(before: pd.DataFrame, after: pd.DataFrame, out: Path) -> str:
    """Write the steps that both curves have as JSON and plot into `out`; returns their largest difference in words."""
    both = before.join(after, how="inner", lsuffix="_before", rsuffix="_after")
    if both.empty:
        raise ValueError("the curves have no step in common; take more --steps")
    both = both[[f"{name}_{when}" for name in COLUMNS for when in ("before", "after")]]
    out.mkdir(parents=True, exist_ok=True)
    both.reset_index().to_json(out / f"{NAME}.json", orient="records", indent=1)
    _plot(both, out / f"{NAME}.png")
    largest = (both["loss_before"] - both["loss_after"]).abs().max()
    return f"{len(both)} points up to step {both.index[-1]}: the losses differ by {largest:.2g} at most"


def _plot(both: pd.DataFrame, path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(COLUMNS), figsize=(8, 3), dpi=100, layout="constrained")
    for axis, name in zip(axes, COLUMNS, strict=True):
        axis.plot(both[f"{name}_before"], color="0.7", lw=5, label="former loop")
        axis.plot(both[f"{name}_after"], color="tab:blue", lw=1.5, label="trainer")
        axis.set(xlabel="step", title=name.replace("_", " "))
    axes[0].legend()
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
