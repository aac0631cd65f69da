"""The networks a suite scores with, behind small interfaces."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

PRECISIONS = ("float32", "bfloat16")


class Backbone(Protocol):
    """What a table and a manifest say of a network.

    official: False where the weights are known not to be the published ones. digest: sha256 of the weights' file, or
    of all files that the network is read from.
    """

    name: str
    official: bool
    digest: str


class StructureBackbone(Backbone, Protocol):
    def keys(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to token keys (B, N, D)."""
        ...


class PerceptualBackbone(Backbone, Protocol):
    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [0, 1] to one float32 tensor (B, ...) per layer, in either precision."""
        ...

    def distance(self, features_a: list[Tensor], features_b: list[Tensor]) -> Tensor:
        """The perceptual distance (B,) of what `features` gave for two batches."""
        ...


class ClipBackbone(Backbone, Protocol):
    def image_embedding(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to unit vectors (B, D)."""
        ...

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit vectors (B, D)."""
        ...

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than the network reads, so that its end is cut off."""
        ...


class DepthBackbone(Backbone, Protocol):
    def depth(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to float32 (B, h, w) of unknown scale, larger where nearer."""
        ...


class SegmentationBackbone(Backbone, Protocol):
    classes: int

    def labels(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to train ids (B, H, W) int64."""
        ...


class FeatureBackbone(Backbone, Protocol):
    """For FID. dimension: D; batch: images to take at once; device: where it computes."""

    batch: int
    device: str

    @property
    def dimension(self) -> int: ...

    def prepare(self, image: "Image.Image") -> "np.ndarray":
        """One decoded image to (3, S, S). Called from several threads."""
        ...

    def features(self, prepared: Tensor) -> Tensor:
        """What `prepare` gave, stacked (B, 3, S, S), to (B, D)."""
        ...


@dataclass(frozen=True)
class Backbones:
    """precision: that of the networks as they were built; see `PieBenchScorer`."""

    structure: StructureBackbone
    perceptual: PerceptualBackbone
    clip: ClipBackbone
    precision: str = "float32"


@dataclass(frozen=True, kw_only=True)
class TranslationBackbones:
    """features: for FID. depth, segmentation: None where the task is not scored with it."""

    features: FeatureBackbone
    depth: DepthBackbone | None = None
    segmentation: SegmentationBackbone | None = None


def check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} must be one of {', '.join(PRECISIONS)} (--precision)")
