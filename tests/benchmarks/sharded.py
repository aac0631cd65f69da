"""Both benchmarks as a program that tests start as several processes: DATA OUT RECIPE [shard].

DATA holds piebench/ and segmentation/. What is left of the commands is the suite: small networks instead of real ones.
"""

import sys
from pathlib import Path

from benchmarks import piebench, translation
from benchmarks.suites import Suite
from tests.benchmarks import standins
from tests.benchmarks.killable_translation import TINY as TINY_TRANSLATION
from tests.benchmarks.tiny import SIDE

BATCH = 3
TINY = Suite(
    name="tiny",
    image_side=SIDE,
    dataset=lambda data: data if data is not None else Path("nowhere"),
    backbones=lambda weights, device, precision, clip: standins.backbones(),
)


def main(data: str, out: str, recipe: str, shard: str | None = None) -> None:
    methods = (f"external:{recipe}",)
    edit = piebench.Arguments(
        data=Path(data) / "piebench",
        out=Path(out),
        methods=(*methods, "copy-source"),
        batch_size=BATCH,
        shard=shard,
    )
    translate = translation.Arguments(
        task="segmentation",
        data=Path(data) / "segmentation",
        out=Path(out),
        methods=methods,
        batch_size=BATCH,
        shard=shard,
    )
    piebench.evaluate(edit, TINY)
    translation.evaluate(translate, TINY_TRANSLATION)


if __name__ == "__main__":
    main(*sys.argv[1:])
