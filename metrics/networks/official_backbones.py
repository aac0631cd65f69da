"""The official networks of a benchmark, found and loaded together."""

from pathlib import Path

from metrics.networks.backbones import Backbones, ClipBackbone, TranslationBackbones, check_precision
from metrics.networks.official import (
    CLIP_VIT_L14,
    DEEPLABV3_R101,
    DINO_VITB8,
    DPT_LARGE,
    INCEPTION,
    OFFICIAL_CLIP,
    SQUEEZENET,
    find,
)


def official_backbones(
    weights: Path | None, device: str = "cpu", precision: str = "float32", clip: str = OFFICIAL_CLIP
) -> Backbones:
    """DINO ViT-B/8, LPIPS SqueezeNet and CLIP ViT-L/14, as the published PIE-Bench rows were scored with.

    weights: a folder with the official files by their names (metrics/networks/assets.toml), looked into before the
    caches and the network. precision "bfloat16" runs the two transformers in bfloat16; the rest stays float32.
    clip: another than the published rows' CLIP, see `clip_backbone`.
    """
    from metrics.networks.dino import OfficialDino
    from metrics.networks.lpips import OfficialLpips

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
    from metrics.networks.open_clip import OpenClip

    if choice != OFFICIAL_CLIP:
        return OpenClip(choice, device=device, precision=precision)
    return OfficialClip(find(CLIP_VIT_L14, weights), device=device, precision=precision)


def official_translation_backbones(task: str, weights: Path | None, device: str = "cpu") -> TranslationBackbones:
    """Inception, and DPT-large for depth or DeepLabV3 for segmentation, in float32. weights: as above."""
    from metrics.networks.deeplab import OfficialDeepLabV3
    from metrics.networks.dpt import OfficialDepth
    from metrics.networks.inception import OfficialInception

    return TranslationBackbones(
        features=OfficialInception(find(INCEPTION, weights), device=device),
        depth=OfficialDepth(find(DPT_LARGE, weights), device=device) if task == "depth" else None,
        segmentation=(
            OfficialDeepLabV3(find(DEEPLABV3_R101, weights), device=device) if task == "segmentation" else None
        ),
    )
