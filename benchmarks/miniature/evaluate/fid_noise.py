"""FID's noise: how far apart are two sets of true images, of which no model has made any?

    python -m benchmarks.miniature.evaluate.fid_noise [--sizes 70 500] [--scenes 5000]

All scenes are drawn once; of each size there are as many pairs of disjoint sets as they suffice for. A row of the
translation tables is nearer to its real images than that where it shows the same scenes as they do.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from benchmarks.miniature import WEIGHTS
from benchmarks.miniature.evaluate.backbones import load_translation_backbones
from benchmarks.miniature.world.embedded import held_out_scenes
from benchmarks.miniature.world.render import render
from metrics.functional.frechet import FeatureSums, fid
from metrics.networks.backbones import FeatureBackbone

SEED = 79  # other scenes than the embedded sets'


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Example: python -m benchmarks.miniature.evaluate.fid_noise --sizes 70 500

    Measure the FID between sets of the miniature's true images."""

    sizes: tuple[int, ...] = (70, 500)
    """Images in a set."""
    scenes: int = 5000
    """Scenes to draw, at least twice the largest size."""
    weights: Path = WEIGHTS
    """Folder with perception.safetensors."""

    def __post_init__(self) -> None:
        if min(self.sizes, default=0) < 2 or self.scenes < 2 * max(self.sizes):
            raise ValueError(
                f"--sizes is {self.sizes} with --scenes {self.scenes}; sizes go from 2 to half the number of scenes"
            )


def main(arguments: Arguments) -> None:
    """Print a table with a line for each size."""
    network = load_translation_backbones(arguments.weights / "perception.safetensors", "canny").features
    features = features_of_scenes(arguments.scenes, network)
    print("| images in a set | pairs | lowest | mean | highest |\n|---:|---:|---:|---:|---:|")
    for size in arguments.sizes:
        found = distances(features, size)
        print(f"| {size} | {len(found)} | {min(found):.2f} | {np.mean(found):.2f} | {max(found):.2f} |")


def features_of_scenes(count: int, network: FeatureBackbone) -> Tensor:
    """(count, D) of the pictures of different scenes that no training has seen."""
    scenes = held_out_scenes("depth", count, seed=SEED)
    parts = [scenes[start : start + network.batch] for start in range(0, count, network.batch)]
    prepared = ([network.prepare(Image.fromarray(render(scene))) for scene in part] for part in parts)
    return torch.cat([network.features(torch.from_numpy(np.stack(part))).cpu() for part in prepared])


def distances(features: Tensor, size: int) -> list[float]:
    """FID of the first and second `size` rows of features (n, D), of the third and fourth, and so on."""
    sets = []
    for part in features.split(size)[: len(features) // size]:
        sums = FeatureSums(features.shape[1])
        sums.update(part)
        sets.append(sums.statistics())
    return [fid(first, second) for first, second in zip(sets[::2], sets[1::2], strict=False)]


if __name__ == "__main__":
    main(tyro.cli(Arguments))
