"""Where the official files of the unified methods are found: a checkpoint, and the tokenizer that it lacks."""

from dataclasses import dataclass
from pathlib import Path

from baselines.checkpoints import Checkpoint, find
from baselines.method import MethodContext, Unsupported
from baselines.needs import NeededFile, Needs
from baselines.unified.settings import SamplerSettings
from editar.io.digests import file_digest

TOKENIZER = Checkpoint(
    name="clip-vit-large-patch14",
    files=("merges.txt", "vocab.json"),
    repository="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    licence="MIT",
)


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """name: of the file, in the folder that the user names. source: where its authors publish it, of `size` bytes and
    under `licence`. hub: the folder with it, where that is the Hugging Face hub, which then has size and licence."""

    name: str
    source: str
    hub: Checkpoint | None = None
    size: int | None = None
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class Files:
    """What a unified method is made of: the checkpoint, and the folder with the files of CLIP's tokenizer."""

    checkpoint: Path
    tokenizer: Path

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file, by name."""
        return {self.checkpoint.name: file_digest(self.checkpoint), **TOKENIZER.digests(self.tokenizer)}


def refuse_miniature(method: str, context: MethodContext) -> None:
    """Raises Unsupported where only the official weights would do."""
    if context.suite == "miniature":
        raise Unsupported(f"{method} has no networks for the suite 'miniature': leave it out of --methods")


def find_files(method: str, wanted: CheckpointFile, weights: Path | None) -> Files:
    """The method's files: the user's, or the hub's, fetched if need be. weights: the user's folder, or None. Raises
    FileNotFoundError that says what to put where."""
    return Files(checkpoint=_checkpoint(method, wanted, weights), tokenizer=find(TOKENIZER, weights))


def needed_files(wanted: CheckpointFile, weights: Path | None) -> tuple[NeededFile, ...]:
    """What `find_files` would find."""
    mine = None if weights is None else weights / wanted.name
    if wanted.hub is not None and not (mine is not None and mine.is_file()):
        files = wanted.hub.needed(weights)
    else:
        path = mine if mine is not None and mine.is_file() else None
        one = NeededFile(name=wanted.name, source=wanted.source, size=wanted.size, licence=wanted.licence, path=path)
        files = (one,)
    return files + TOKENIZER.needed(weights)


def unified_needs(wanted: CheckpointFile, weights: Path | None, settings: SamplerSettings) -> Needs:
    """The files, and the passes of UNet and control: both halves of the guidance in each step."""
    passes = dict.fromkeys(("UNet", "control"), 2 * settings.steps)
    return Needs(files=needed_files(wanted, weights), passes=passes)


def _checkpoint(method: str, wanted: CheckpointFile, weights: Path | None) -> Path:
    if weights is not None and (weights / wanted.name).is_file():
        return weights / wanted.name
    if wanted.hub is not None:
        return find(wanted.hub, weights) / wanted.name
    folder = weights or "DIR"
    raise FileNotFoundError(
        f"{method} needs {wanted.name}: fetch it from {wanted.source}, put it at {folder}/{wanted.name} and pass "
        f"--weights {folder}"
    )
