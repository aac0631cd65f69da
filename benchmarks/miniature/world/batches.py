"""Training data of the miniature: batches drawn from the world by (seed, step) alone, never a held-out scene."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.datasets.translation_protocols import canny_map
from benchmarks.miniature.world.edits import Edit, random_edit
from benchmarks.miniature.world.render import PALETTE, depth, render, segmentation
from benchmarks.miniature.world.scene import Scene
from editar.prompts import TASKS

BATCH = 64  # images that go through a network together


def training_edits(seed: int, step: int) -> Iterator[Edit]:
    """Endless edits, none with a held-out scene; equal for equal (seed, step)."""
    rng = np.random.default_rng((seed, step % 2**32))
    while True:
        edit = random_edit(rng)
        if not edit.held_out:
            yield edit


def to_tensor(images: list[np.ndarray]) -> Tensor:
    """uint8 (64, 64, 3) arrays -> float32 (B, 3, 64, 64) in [-1, 1], channels last in memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def through(network: Callable[[Tensor], Tensor], images: Sequence[np.ndarray], device: str | torch.device) -> Tensor:
    """What a network makes of uint8 images (n, 64, 64, 3), BATCH at a time; on the CPU."""
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return torch.cat([network(to_tensor(list(part)).to(device)).cpu() for part in parts])


def condition(scene: Scene, task: str) -> np.ndarray:
    """The condition image of a translation task, uint8 (64, 64, 3)."""
    if task == "segmentation":
        return PALETTE[segmentation(scene)]
    return np.repeat((depth(scene) if task == "depth" else canny_map(render(scene), "kornia"))[..., None], 3, axis=-1)


def tokenizer_batch(seed: int, step: int, size: int) -> Tensor:
    """Images (size, 3, 64, 64) in [-1, 1]: three in four of them photos and edits, the others condition images."""
    rng = np.random.default_rng((seed, step % 2**32, 1))
    images: list[np.ndarray] = []
    for edit in training_edits(seed, step):
        scene = edit.target if rng.random() < 0.5 else edit.source
        images.append(condition(edit.source, TASKS[rng.integers(3)]) if rng.random() < 0.25 else render(scene))
        if len(images) == size:
            return to_tensor(images)
    raise AssertionError("training_edits ends only with its reader")
