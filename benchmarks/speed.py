"""Speed ratios, both sides measured in one run: `python -m benchmarks.speed decode|fid|metrics|scale|train`."""

from collections.abc import Callable

import tyro

from benchmarks.speed_decode import DecodeSpeed
from benchmarks.speed_fid import FidSpeed
from benchmarks.speed_metrics import MetricsSpeed
from benchmarks.speed_scale import ScaleSpeed
from benchmarks.speed_train import TrainSpeed

COMMANDS: dict[str, Callable[..., DecodeSpeed | FidSpeed | MetricsSpeed | ScaleSpeed | TrainSpeed]] = {
    "decode": DecodeSpeed,
    "fid": FidSpeed,
    "metrics": MetricsSpeed,
    "scale": ScaleSpeed,
    "train": TrainSpeed,
}


def main(arguments: list[str] | None = None) -> None:
    tyro.extras.subcommand_cli_from_dict(COMMANDS, args=arguments, prog="python -m benchmarks.speed").run()


if __name__ == "__main__":
    main()
