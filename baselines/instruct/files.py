"""Where the networks of a row are found: its authors' checkpoint, or a folder of diffusers."""

from dataclasses import dataclass
from pathlib import Path

from baselines.method import MethodContext, Unsupported, refuse_miniature
from baselines.stable_diffusion import assets as stable_diffusion
from baselines.stable_diffusion.assets import CLIP_TOKENIZER
from editar.io.assets import Asset

# What the miniature's text-to-image model lends.
MINIATURE_BASE = Asset(
    name="diffusion",
    files=(
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row's networks.

    checkpoint: the authors' file, in LDM's layout. averaged: whether the authors' code takes its UNet from the moving
    average that the file has beside the last step's weights. port: to diffusers, which the user may put in the file's
    place. miniature: the UNet's folder, in it `text_encoder/`; None where the suite has none.
    """

    checkpoint: Asset
    averaged: bool
    port: Asset
    miniature: Asset | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file in LDM's layout, and the folder with the files of CLIP's tokenizer, which it lacks."""

    path: Path
    tokenizer: Path


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Networks in folders of diffusers. base: has the VAE, the tokenizer and the scheduler. unet, text_encoder: folders
    of their own."""

    base: Path
    unet: Path
    text_encoder: Path


def weights_folder(title: str, published: Published, context: MethodContext) -> Path | None:
    """The folder to look in first. Raises Unsupported where the suite has no networks for the row."""
    if published.miniature is None:
        refuse_miniature(title, context)
    folder = stable_diffusion.weights_folder(context)
    if context.suite != "miniature" or context.weights is not None or published.miniature is None or folder is None:
        return folder
    if not (folder / published.miniature.name).is_dir():
        raise Unsupported(
            f"the miniature's {published.miniature.name}/ is not there; python -m benchmarks.miniature.build_diffusion "
            "trains it"
        )
    return folder


def assets(published: Published, suite: str, weights: Path | None) -> tuple[Asset, ...]:
    """What a row is made of: the user's checkpoint, else the user's port, else the published checkpoint.

    weights: of `weights_folder`.
    """
    if suite == "miniature":
        assert published.miniature is not None
        return MINIATURE_BASE, published.miniature
    has_port = weights is not None and (weights / published.port.name).is_dir()
    if has_port and not any(file.comes == "given" and file.path for file in published.checkpoint.locate(weights)):
        return (published.port,)
    return published.checkpoint, CLIP_TOKENIZER


def find_networks(published: Published, suite: str, weights: Path | None) -> Checkpoint | Folders:
    """The row's networks, fetched if need be. Raises FileNotFoundError that says what to put where."""
    chosen = assets(published, suite, weights)
    first, *rest = (asset.find(weights) for asset in chosen)
    if suite == "miniature":
        return Folders(base=first, unet=rest[0], text_encoder=rest[0] / "text_encoder")
    if chosen == (published.port,):
        return Folders(base=first, unet=first / "unet", text_encoder=first / "text_encoder")
    return Checkpoint(path=first, tokenizer=rest[0])
