"""`python -m benchmarks.speed fid`: how much of FID's wall time is the network's, against the same work done in turn.

Decoding and resizing run in threads ahead of the network. Both ways, and the network on batches that lie ready, take
turns in one run, so that a busy machine disturbs them alike.

On a CPU the threads take their time from the network, which then seems to be at work all along: "inside the network"
says how long the wall clock ran in there. What it needs by itself, as a part of the wall time, is "network alone", the
figure that nothing but overlapping can raise; the rest is reading, preparing, and adding features up.
"""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.speed.measure import SpeedSettings, ensure_weights, in_words, report_speed, table, take_turns
from benchmarks.speed.metrics import SIDE, make_workload
from benchmarks.tools.random_weights import write_inception
from metrics.networks.backbones import FeatureBackbone
from metrics.networks.inception import OfficialInception
from metrics.networks.official import INCEPTION, find
from metrics.protocols.fid import WORKERS, prepared_batches, sums_of_files

IN_TURN, AHEAD, NETWORK = "in turn", "read ahead", "network alone"


@dataclass(frozen=True, kw_only=True)
class FidSpeed(SpeedSettings):
    """Example: python -m benchmarks.speed fid

    Seconds per image of FID's sums, and the network's share of them.
    """

    weights: Path = Path("runs/speed/inception")
    """Folder with inception-2015-12-05.pt; made with random weights (90 MB) where it does not exist."""
    images: int = 64
    """PNG files of 512 x 512, as runs have them, written to a temporary folder."""
    rounds: int = 3
    """Timed rounds after one that warms up; the medians count."""
    threads: int = 2
    """Of the network."""
    workers: int = WORKERS
    """Threads that decode and resize."""
    device: str = "cpu"
    seed: int = 0

    def run(self) -> None:
        report_speed(self, self._measure, report)

    def _measure(self) -> dict[str, Any]:
        network = OfficialInception(find(INCEPTION, ensure_weights(self.weights, write_inception)), device=self.device)
        with tempfile.TemporaryDirectory() as folder:
            return measure(self, network, write_images(Path(folder), self.images, self.seed))


def write_images(folder: Path, images: int, seed: int, side: int = SIDE) -> list[Path]:
    files = []
    for i in range(images):
        pixels = make_workload(1, 0, seed + i, side).sources[0]
        files.append(folder / f"{i:05}.png")
        Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy()).save(files[-1])
    return files


def measure(settings: FidSpeed, network: FeatureBackbone, files: list[Path]) -> dict[str, Any]:
    """Seconds per image of each way (medians over the rounds) and the network's share of its wall time."""
    ready = list(prepared_batches(files, network, settings.workers))
    ways: dict[str, Callable[[FeatureBackbone], object]] = {
        IN_TURN: lambda watched: sums_of_files(files, watched, 0),
        AHEAD: lambda watched: sums_of_files(files, watched, settings.workers),
        NETWORK: lambda watched: [watched.features(batch) for batch in ready],
    }
    turns = take_turns({name: partial(timed, way, network) for name, way in ways.items()}, 1 + settings.rounds)
    seconds = {name: times[1:] for name, times in turns.items()}  # the first round warms up
    wall = {name: statistics.median(w for w, _ in times) / len(files) for name, times in seconds.items()}
    return {
        "seconds": seconds,
        "images": len(files),
        "seconds_per_image": wall,
        "inside_the_network": {name: statistics.median(n / w for w, n in times) for name, times in seconds.items()},
        "network_alone_of_wall": {name: wall[NETWORK] / value for name, value in wall.items()},
        "ratio": {name: wall[IN_TURN] / value for name, value in wall.items()},
    }


def timed(way: Callable[[FeatureBackbone], object], network: FeatureBackbone) -> tuple[float, float]:
    """Seconds in all, and of these the ones in the network."""
    inside = 0.0

    def features(prepared: Tensor) -> Tensor:
        nonlocal inside
        start = time.perf_counter()
        found = network.features(prepared)
        if network.device != "cpu":
            torch.cuda.synchronize()
        inside += time.perf_counter() - start
        return found

    watched = copy.copy(network)
    watched.features = features  # type: ignore[method-assign]
    start = time.perf_counter()
    way(watched)
    return time.perf_counter() - start, inside


def report(figures: dict[str, Any]) -> str:
    """The figures as text."""
    formats = {"seconds_per_image": ".4f", "inside_the_network": ".1%", "network_alone_of_wall": ".1%", "ratio": ".2f"}
    return f"FID: {in_words(figures['settings'])}\n{table({name: figures[name] for name in formats}, formats)}"
