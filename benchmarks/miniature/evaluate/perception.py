"""The perception network: one small network whose features and heads stand in for the scoring backbones.

Image-text similarity (for CLIP), self-similarity features (for DINO), perceptual distance (for LPIPS), attribute,
segmentation and depth heads. Trained from scratch on the world, on pictures with noise, blur and colour shifts, so that
it also reads pictures that a tokenizer has been through.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.miniature.world.scene import BACKGROUNDS, COLOURS, CONTENTS, MATERIALS, SHAPES, STYLES, VOCABULARY
from editar.config import WordTextConfig
from editar.model.text import WordTextEncoder

DENSE_HEADS = {
    "segmentation": BACKGROUNDS + SHAPES,
    "colour": COLOURS,
    "material": MATERIALS,
    "content": CONTENTS,
    "flipped": ("upright", "flipped"),
}
GLOBAL_HEADS = {"background": BACKGROUNDS, "style": STYLES}
STRIDES = (2, 1, 2, 2)  # of the four levels
STRIDE = 2  # of the dense heads


@dataclass(frozen=True, kw_only=True)
class PerceptionConfig:
    """Widths of the four levels and of the joint image-text space."""

    widths: tuple[int, ...] = (24, 48, 80, 112)
    embedding: int = 128
    text_dim: int = 128
    vocabulary: tuple[str, ...] = VOCABULARY

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "vocabulary", tuple(self.vocabulary))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Perception(nn.Module):
    """Images (B, 3, 64, 64) in [-1, 1] to features, heads and embeddings; captions to embeddings."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stems = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
            )
            for before, after, stride in zip((3, *widths[:-1]), widths, STRIDES, strict=True)
        )
        self.blocks = nn.ModuleList(nn.Sequential(_Block(width), _Block(width)) for width in widths[1:])
        self.lateral = nn.ModuleList(nn.Conv2d(width, 64, 1) for width in widths[1:])
        self.dense = nn.Sequential(nn.Conv2d(64, 96, 3, padding=1), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Conv2d(96, len(names), 1) for name, names in DENSE_HEADS.items()})
        self.depth = nn.Conv2d(96, 1, 1)
        self.pooled = nn.ModuleDict({name: nn.Linear(widths[-1], len(names)) for name, names in GLOBAL_HEADS.items()})
        self.cells = nn.Sequential(nn.Linear(widths[-1] + 64, 192), nn.ReLU(), nn.Linear(192, config.embedding))
        self.text = WordTextEncoder(WordTextConfig(vocabulary=config.vocabulary, dim=config.text_dim))
        self.text_out = nn.Linear(config.text_dim, config.embedding)
        self.temperature = nn.Parameter(torch.tensor(2.3))

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps at strides 2, 2, 4 and 8."""
        maps = [self.stems[0](images)]
        for stem, block in zip(self.stems[1:], self.blocks, strict=True):
            maps.append(block(stem(maps[-1])))
        return maps

    def pyramid(self, maps: list[Tensor]) -> Tensor:
        """The feature maps merged at stride 2, (B, 64, 32, 32)."""
        x = self.lateral[-1](maps[-1])
        for lateral, level in zip(reversed(self.lateral[:-1]), reversed(maps[1:-1]), strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest") + lateral(level)
        return x

    def predict(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """Logits of the dense heads (B, K, 32, 32), depth (B, 1, 32, 32), and the global heads (B, K)."""
        x = self.dense(self.pyramid(maps))
        mean = maps[-1].mean((2, 3))
        dense = {name: head(x) for name, head in self.heads.items()}
        return {**dense, "depth": self.depth(x), **{name: head(mean) for name, head in self.pooled.items()}}

    def embed_images(self, maps: list[Tensor]) -> Tensor:
        """Unit embeddings (B, 128): the sum of what each of the 64 cells says."""
        return F.normalize(self.embed_cells(maps).mean(1).float(), dim=-1)

    def embed_cells(self, maps: list[Tensor]) -> Tensor:
        """What each cell says, row by row, (B, 64, 128)."""
        fine = F.adaptive_avg_pool2d(self.pyramid(maps), (maps[-1].shape[-2], maps[-1].shape[-1]))
        return self.cells(torch.cat([maps[-1], fine], dim=1).flatten(2).transpose(1, 2))

    def embed_texts(self, ids_BL: Tensor) -> Tensor:
        """Unit embeddings (B, 128) of captions given as word ids."""
        states = self.text.encode(ids_BL)
        weight = (ids_BL != 0).unsqueeze(-1).to(states.dtype)
        return F.normalize(self.text_out((states * weight).sum(1) / weight.sum(1)).float(), dim=-1)
