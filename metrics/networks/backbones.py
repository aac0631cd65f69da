"""The networks a suite scores with, behind small interfaces; the official ones and where they come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

PRECISIONS = ("float32", "bfloat16")
OFFICIAL_CLIP = "openai/ViT-L-14"


class Backbone(Protocol):
    """What a table and a manifest say of a network.

    official: False where the weights are known not to be the published ones. digest: sha256 of the weights' file.
    """

    @property
    def name(self) -> str: ...

    @property
    def official(self) -> bool: ...

    @property
    def digest(self) -> str: ...


class StructureBackbone(Backbone, Protocol):
    def keys(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to token keys (B, N, D)."""
        ...


class PerceptualBackbone(Backbone, Protocol):
    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [0, 1] to one tensor (B, ...) per layer."""
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


class DepthBackbone(Backbone, Protocol):
    def depth(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to float32 (B, h, w) of unknown scale, larger where nearer."""
        ...


class SegmentationBackbone(Backbone, Protocol):
    @property
    def classes(self) -> int: ...

    def labels(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to train ids (B, H, W) int64."""
        ...


class FeatureBackbone(Backbone, Protocol):
    """For FID. dimension: D; batch: images to take at once; device: where it computes."""

    @property
    def dimension(self) -> int: ...

    @property
    def batch(self) -> int: ...

    @property
    def device(self) -> str: ...

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


def official_backbones(
    weights: Path | None, device: str = "cpu", precision: str = "float32", clip: str = OFFICIAL_CLIP
) -> Backbones:
    """DINO ViT-B/8, LPIPS SqueezeNet and CLIP ViT-L/14, as the published PIE-Bench rows were scored with.

    weights: a folder with the official files by their names (official.py lists them), looked into before the
    caches and the network. precision "bfloat16" runs the two transformers in bfloat16; the rest stays float32.
    clip: another than the published rows' CLIP, see `clip_backbone`.
    """
    from metrics.networks.dino import OfficialDino
    from metrics.networks.lpips import OfficialLpips
    from metrics.networks.official import DINO_VITB8, SQUEEZENET, find

    check_precision(precision)
    return Backbones(
        structure=OfficialDino(find(DINO_VITB8, weights), device=device, precision=precision),
        perceptual=OfficialLpips(find(SQUEEZENET, weights), device=device),
        clip=clip_backbone(clip, weights, device, precision),
        precision=precision,
    )


def clip_backbone(choice: str, weights: Path | None, device: str, precision: str) -> ClipBackbone:
    """OFFICIAL_CLIP, or one of open_clip's models: TAG/ARCHITECTURE or a folder, see metrics/networks/open_clip.py."""
    from metrics.networks.clip import OfficialClip
    from metrics.networks.official import CLIP_VIT_L14, find
    from metrics.networks.open_clip import OpenClip

    if choice != OFFICIAL_CLIP:
        return OpenClip(choice, device=device, precision=precision)
    return OfficialClip(find(CLIP_VIT_L14, weights), device=device, precision=precision)


def official_translation_backbones(task: str, weights: Path | None, device: str = "cpu") -> TranslationBackbones:
    """Inception, and DPT-large for depth or DeepLabV3 for segmentation, in float32. weights: as above."""
    from metrics.functional.depth import OfficialDepth
    from metrics.networks.deeplab import OfficialDeepLabV3
    from metrics.networks.inception import OfficialInception
    from metrics.networks.official import DEEPLABV3_R101, DPT_LARGE, INCEPTION, find

    return TranslationBackbones(
        features=OfficialInception(find(INCEPTION, weights), device=device),
        depth=OfficialDepth(find(DPT_LARGE, weights), device=device) if task == "depth" else None,
        segmentation=(
            OfficialDeepLabV3(find(DEEPLABV3_R101, weights), device=device) if task == "segmentation" else None
        ),
    )
