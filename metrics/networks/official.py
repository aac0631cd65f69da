"""The official networks that score: where they come from, and whether what was found is what was published.

A file in the user's folder is taken by its name, whatever it holds; its digest is recorded, and where it is not the
published one the network counts as unofficial. Everything else must have the published digest.
"""

from dataclasses import dataclass
from pathlib import Path

from editar.io.assets import Asset, read_assets
from editar.io.digests import file_digest, json_digest, list_digest
from metrics.networks.backbones import Backbones, ClipBackbone, TranslationBackbones, check_precision

_ASSETS = read_assets(Path(__file__).with_name("assets.toml"))
DINO_VITB8 = _ASSETS["dino_vitbase8_pretrain.pth"]
SQUEEZENET = _ASSETS["squeezenet1_1-b8a52dc0.pth"]
CLIP_VIT_L14 = _ASSETS["clip-vit-large-patch14"]
DPT_LARGE = _ASSETS["dpt-large"]
DEEPLABV3_R101 = _ASSETS["deeplabv3_r101-d8_512x512_4x4_320k_coco-stuff164k_20210709_155402-3cbca14d.pth"]
INCEPTION = _ASSETS["inception-2015-12-05.pt"]
OFFICIAL_CLIP = "openai/ViT-L-14"  # as open_clip names CLIP_VIT_L14

# What the official networks are made of, of PIE-Bench and of each task of the translation benchmarks.
PIE_BENCH = (DINO_VITB8, SQUEEZENET, CLIP_VIT_L14)
TRANSLATION = {
    "depth": (INCEPTION, DPT_LARGE),
    "canny": (INCEPTION,),
    "segmentation": (INCEPTION, DEEPLABV3_R101),
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """path: the file with the weights. official: False where its digest is known not to be the published one. beside:
    the digest of what else of its folder decides, such as configuration and vocabulary; "" where there is nothing."""

    path: Path
    digest: str
    official: bool
    beside: str = ""

    @property
    def folder(self) -> Path:
        return self.path.parent


class OfficialNetwork:
    """What a table and a manifest say of a network. name: ends in `@` and the digest's beginning for weights that are
    not the published ones. device: where it computes."""

    def __init__(self, weights: Found, name: str, device: str) -> None:
        self.name = name if weights.official else f"{name}@{weights.digest[:8]}"
        self.official, self.device = weights.official, device
        self.digest = list_digest([weights.digest, weights.beside]) if weights.beside else weights.digest


def find(asset: Asset, weights: Path | None = None, *, endpoint: str | None = None) -> Found:
    """The weights of a network, fetched if need be. Arguments and errors are those of `Asset.find`."""
    place = asset.find(weights, endpoint=endpoint)
    path = asset.main_file(place)
    digest = file_digest(path)
    beside = {
        name: file_digest(place / name) for name in asset.files if (place / name).is_file() and place / name != path
    }
    return Found(
        path=path,
        digest=digest,
        official=digest.startswith(asset.sha256),
        beside=json_digest(beside) if beside else "",
    )


def official_backbones(
    weights: Path | None, device: str = "cpu", precision: str = "float32", clip: str = OFFICIAL_CLIP
) -> Backbones:
    """DINO ViT-B/8, LPIPS SqueezeNet and CLIP ViT-L/14, as the published PIE-Bench rows were scored with.

    weights: a folder with the official files by their names (see above), looked into before the
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
