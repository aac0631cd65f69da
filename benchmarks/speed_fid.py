"""`python -m benchmarks.speed fid`: how much of FID's wall time is the network's, against the same work done in turn.

Decoding and resizing run in threads ahead of the network. Both ways, and the network on batches that lie ready, take
turns in one run, so that a busy machine disturbs them alike.
"""

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.random_weights import write_inception
from benchmarks.speed_metrics import SIDE, make_workload
from metrics.backbones import FeatureBackbone
from metrics.fid import FeatureSums
from metrics.fid_images import WORKERS, prepared_batches
from metrics.inception import OfficialInception
from metrics.weights import INCEPTION, find

IN_TURN, AHEAD, NETWORK = "in turn", "read ahead", "network alone"


@dataclass(frozen=True, kw_only=True)
class FidSpeed:
    """Seconds per image of FID's sums, and the network's share of them."""

    weights: Path = Path("runs/speed/inception")
    """Folder with inception-2015-12-05.pt; made with random weights (90 MB) where it does not exist."""
    images: int = 64
    """PNG files of 512 x 512, written to a temporary folder."""
    rounds: int = 3
    """Timed rounds after one that warms up; the medians count."""
    threads: int = 2
    """Of the network."""
    workers: int = WORKERS
    """Threads that decode and resize."""
    device: str = "cpu"
    seed: int = 0
    out: Path | None = None
    """Write the figures as JSON to this file too."""

    def run(self) -> None:
        torch.set_num_threads(self.threads)
        if not self.weights.is_dir():
            print(f"writing random weights to {self.weights}", flush=True)
            unfinished = self.weights.with_name(self.weights.name + ".part")
            write_inception(unfinished).rename(self.weights)
        network = OfficialInception(find(INCEPTION, self.weights), device=self.device)
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(self, network, write_images(Path(folder), self.images, self.seed))
        print(report(figures))
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(json.dumps(figures, indent=1, default=str) + "\n")


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
    ways: dict[str, Callable[[], Iterable[Tensor]]] = {
        IN_TURN: lambda: prepared_batches(files, network, 0),
        AHEAD: lambda: prepared_batches(files, network, settings.workers),
        NETWORK: lambda: ready,
    }
    for batches in ways.values():
        timed(batches(), network)
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(settings.rounds):
        for way, batches in ways.items():
            seconds[way].append(timed(batches(), network))
    wall = {way: statistics.median(w for w, _ in times) / len(files) for way, times in seconds.items()}
    return {
        "machine": {
            "platform": platform.platform(),
            "vector_instructions": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        },
        "settings": asdict(settings),
        "seconds": seconds,
        "images": len(files),
        "seconds_per_image": wall,
        "share_of_the_network": {way: statistics.median(n / w for w, n in times) for way, times in seconds.items()},
        "network_alone_of_wall": {way: wall[NETWORK] / value for way, value in wall.items()},
        "ratio": {way: wall[IN_TURN] / value for way, value in wall.items()},
    }


def timed(batches: Iterable[Tensor], network: FeatureBackbone) -> tuple[float, float]:
    """Seconds in all, and seconds in the network and its sums, of what FID does with batches."""
    sums = FeatureSums(network.dimension, network.device)
    inside = 0.0
    start = time.perf_counter()
    for batch in batches:
        entered = time.perf_counter()
        sums.update(network.features(batch))
        if network.device != "cpu":
            torch.cuda.synchronize()
        inside += time.perf_counter() - entered
    return time.perf_counter() - start, inside


def report(figures: dict[str, Any]) -> str:
    """The figures as text."""
    settings = figures["settings"]
    lines = [
        f"FID: {figures['images']} images, {settings['rounds']} rounds, {settings['threads']} threads for the network, "
        f"{settings['workers']} to read ahead, on {settings['device']}",
        f"{'way':16}{'s per image':>14}{'inside the network':>22}{'network alone / wall':>24}{'ratio':>8}",
    ]
    for way, seconds in figures["seconds_per_image"].items():
        share, alone = figures["share_of_the_network"][way], figures["network_alone_of_wall"][way]
        lines.append(f"{way:16}{seconds:14.4f}{share:22.1%}{alone:24.1%}{figures['ratio'][way]:8.2f}")
    return "\n".join(lines)
