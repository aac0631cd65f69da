"""A translation run that tests can start as a process of its own: DATA OUT RECIPE."""

import sys
from pathlib import Path

from benchmarks.suites import Suite
from benchmarks.translation import Arguments, evaluate
from tests.benchmarks import standins
from tests.benchmarks.tiny import SIDE

TINY = Suite(
    name="tiny",
    image_side=SIDE,
    classes=171,
    dataset=lambda source, data: data,
    backbones=lambda task, weights, device: standins.translation_backbones(task),
)


def main(data: str, out: str, recipe: str) -> None:
    methods = (f"external:{recipe}",)
    evaluate(Arguments(task="segmentation", data=Path(data), out=Path(out), methods=methods, batch_size=2), TINY)


if __name__ == "__main__":
    main(*sys.argv[1:])
