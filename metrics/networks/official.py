"""The official networks that score: where they come from, and whether what was found is what was published.

A file in the user's folder is taken by its name, whatever it holds; its digest is recorded, and where it is not the
published one the network counts as unofficial. Everything else must have the published digest.
"""

from dataclasses import dataclass
from pathlib import Path

from editar.io.assets import Asset, read_assets
from editar.io.digests import file_digest, json_digest, list_digest

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
        self.official, self.device = weights.official, device
        self.digest = list_digest([weights.digest, weights.beside]) if weights.beside else weights.digest
        self.name = name if weights.official else f"{name}@{self.digest[:8]}"


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
