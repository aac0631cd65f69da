"""Speed ratios, both sides measured in one run: `python -m benchmarks.speed decode|fid|metrics|scale|train`."""

from collections.abc import Callable

import tyro

from benchmarks.speed.decode import DecodeSpeed
from benchmarks.speed.fid import FidSpeed
from benchmarks.speed.metrics import MetricsSpeed
from benchmarks.speed.scale import ScaleSpeed
from benchmarks.speed.train import TrainSpeed

COMMANDS: dict[str, Callable[..., DecodeSpeed | FidSpeed | MetricsSpeed | ScaleSpeed | TrainSpeed]] = {
    "decode": DecodeSpeed,
    "fid": FidSpeed,
    "metrics": MetricsSpeed,
    "scale": ScaleSpeed,
    "train": TrainSpeed,
}


def main(arguments: list[str] | None = None) -> None:
    example = "Example: python -m benchmarks.speed metrics"
    prog = "python -m benchmarks.speed"
    tyro.extras.subcommand_cli_from_dict(COMMANDS, args=arguments, prog=prog, description=example).run()


if __name__ == "__main__":
    main()
