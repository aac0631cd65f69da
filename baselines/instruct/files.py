"""Where the networks of a row are found: its authors' checkpoint, or a folder of diffusers."""

from dataclasses import dataclass
from pathlib import Path

from baselines.checkpoints import Checkpoint, find, miniature_weights
from baselines.method import MethodContext, Unsupported
from baselines.needs import NeededFile
from baselines.unified.files import CheckpointFile, Files, find_files, needed_files, refuse_miniature

# What the miniature's text-to-image model lends.
MINIATURE_BASE = Checkpoint(
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

    file: the authors' checkpoint, in LDM's layout. averaged: whether the authors' code takes its UNet from the moving
    average that the file has beside the last step's weights. folder: a port to diffusers, which the user may put in the
    file's place. miniature: the UNet's folder, in it `text_encoder/`; None where the suite has none.
    """

    file: CheckpointFile
    averaged: bool
    folder: Checkpoint
    miniature: Checkpoint | None = None


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Networks in folders of diffusers. base: has the VAE, the tokenizer and the scheduler. unet, text_encoder: folders
    of their own. copies: what these are copies of, and where."""

    base: Path
    unet: Path
    text_encoder: Path
    copies: tuple[tuple[Checkpoint, Path], ...]

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file, by name."""
        return {name: digest for copy, folder in self.copies for name, digest in copy.digests(folder).items()}


def weights_folder(title: str, published: Published, context: MethodContext) -> Path | None:
    """The folder to look in first. Raises Unsupported where the suite has no networks for the row."""
    if published.miniature is None:
        refuse_miniature(title, context)
    if context.suite != "miniature" or published.miniature is None:
        return context.weights
    folder = miniature_weights(context.weights)
    if context.weights is None and not (folder / published.miniature.name).is_dir():
        raise Unsupported(
            f"the miniature's {published.miniature.name}/ is not there; python -m benchmarks.miniature.build_diffusion "
            "trains it"
        )
    return folder


def find_networks(title: str, published: Published, suite: str, weights: Path | None) -> Files | Folders:
    """The row's files: the user's checkpoint, else the user's port, else the hub's checkpoint, fetched if need be.

    weights: of `weights_folder`. Raises FileNotFoundError that says what to put where.
    """
    if suite == "miniature":
        assert published.miniature is not None
        base, own = find(MINIATURE_BASE, weights), find(published.miniature, weights)
        copies = ((MINIATURE_BASE, base), (published.miniature, own))
        return Folders(base=base, unet=own, text_encoder=own / "text_encoder", copies=copies)
    if _has_port(published, weights):
        base = find(published.folder, weights)
        unet, text_encoder = base / "unet", base / "text_encoder"
        return Folders(base=base, unet=unet, text_encoder=text_encoder, copies=((published.folder, base),))
    return find_files(title, published.file, weights)


def needed_networks(published: Published, suite: str, weights: Path | None) -> tuple[NeededFile, ...]:
    """What `find_networks` would find."""
    if suite == "miniature":
        assert published.miniature is not None
        return MINIATURE_BASE.needed(weights) + published.miniature.needed(weights)
    if _has_port(published, weights):
        return published.folder.needed(weights)
    return needed_files(published.file, weights)


def _has_port(published: Published, weights: Path | None) -> bool:
    """Whether the user has a port, and not the checkpoint, which goes first."""
    file = published.file
    if weights is None or not (weights / published.folder.name).is_dir():
        return False
    places = [weights / file.name, *([weights / file.hub.name / file.name] if file.hub else [])]
    return not any(place.is_file() for place in places)
