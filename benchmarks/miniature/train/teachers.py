"""What stands in for the paper's teachers in the miniature, and training pairs with the features of their targets.

Both are uses of the perception network: its features in mid-depth for DINOv2, what its image-text branch says of each
cell for CLIP. They are averaged over the student's grid and standardised channel by channel: the published encoders'
features leave a layer norm, and the loss has one weight for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.miniature.evaluate.perception import Perception
from benchmarks.miniature.train.shards import joined, open_shards, write_missing
from benchmarks.miniature.train.tokens import Mixture, Sequences, draw_pairs, tokenised
from benchmarks.miniature.world.batches import to_tensor
from benchmarks.miniature.world.scene import GRID
from editar.model.text import WordTextEncoder
from editar.model.vq import VQModel

NONE, DINO, CLIP = "none", "dinov2", "clip"
SIDE = GRID // 2  # the student's alignment halves the grid of its tokens
ENCODED_TOGETHER = 64


@torch.inference_mode()
def features(network: Perception, images: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """uint8 images (64, 64, 3) -> {teacher: float32 (n, 16, D)}, patches row by row; D is 80 or 128."""
    parts: dict[str, list[Tensor]] = {DINO: [], CLIP: []}
    for start in range(0, len(images), ENCODED_TOGETHER):
        maps = network.features(to_tensor(list(images[start : start + ENCODED_TOGETHER])))
        cells = network.embed_cells(maps).transpose(1, 2).unflatten(2, (GRID, GRID))
        for name, grid in ((DINO, maps[2]), (CLIP, cells)):
            parts[name].append(F.adaptive_avg_pool2d(grid, SIDE).flatten(2).transpose(1, 2))
    return {name: torch.cat(found) for name, found in parts.items()}


def write_examples(
    folder: Path,
    tokenizer: VQModel,
    text: WordTextEncoder,
    network: Perception,
    mixture: Mixture,
    count: int,
    scenes: int,
) -> None:
    """Write the missing ones of `count` shards of sequences, with both teachers' features of the targets."""

    def make(index: int) -> Mapping[str, np.ndarray]:
        images, rows = draw_pairs(mixture, index, scenes)
        arrays = tokenised(tokenizer, text, images, rows).arrays()
        known = features(network, images)
        return arrays | {name: known[name][rows["target"]].numpy().astype(np.float16) for name in known}

    write_missing(folder, count, make)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """All pairs of the shards, with the standardised features (n, 16, D) of one teacher, or None."""

    sequences: Sequences
    teacher: Tensor | None

    @classmethod
    def read(cls, folder: Path, count: int, teacher: str) -> "Examples":
        """teacher: NONE, DINO or CLIP."""
        shards = open_shards(folder, count)
        sequences = Sequences.join(shards)
        if teacher == NONE:
            return cls(sequences=sequences, teacher=None)
        raw = joined(shards, teacher)
        spread, mean = torch.std_mean(raw.float(), dim=(0, 1))
        return cls(sequences=sequences, teacher=((raw - mean) / spread.clamp(min=1e-6)).half())

    def batch(self, seed: int, step: int, size: int) -> tuple[Sequences, Tensor | None]:
        """`size` pairs, a function of (seed, step) alone, and so the same ones for every teacher."""
        rows = np.random.default_rng((seed, 4, step)).integers(len(self.sequences.task), size=size)
        chosen = torch.from_numpy(rows)
        return self.sequences.pick(chosen), None if self.teacher is None else self.teacher[chosen].float()
