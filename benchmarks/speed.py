"""Speed ratios, both sides measured in one run: `python -m benchmarks.speed metrics|fid|train`."""

from collections.abc import Callable

import tyro

from benchmarks.speed_fid import FidSpeed
from benchmarks.speed_metrics import MetricsSpeed
from benchmarks.speed_train import TrainSpeed

COMMANDS: dict[str, Callable[..., FidSpeed | MetricsSpeed | TrainSpeed]] = {
    "fid": FidSpeed,
    "metrics": MetricsSpeed,
    "train": TrainSpeed,
}


def main(arguments: list[str] | None = None) -> None:
    tyro.extras.subcommand_cli_from_dict(COMMANDS, args=arguments, prog="python -m benchmarks.speed").run()


if __name__ == "__main__":
    main()
