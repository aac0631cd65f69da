"""Where the official files of the unified methods are: the user's folder, or the hub's cache. Nothing is fetched."""

from dataclasses import dataclass
from pathlib import Path

from baselines.method import MethodContext


@dataclass(frozen=True, kw_only=True)
class HubFiles:
    """Files of one repository of the Hugging Face hub at a pinned revision."""

    repository: str
    revision: str


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """name: of the file in the user's folder. source: where its authors publish it. hub: where in the hub's cache to
    look for it, if they publish it there."""

    name: str
    source: str
    hub: HubFiles | None = None


# Stable Diffusion's text encoder is in the checkpoints, its tokenizer is not.
TOKENIZER_FOLDER = "clip-vit-large-patch14"
TOKENIZER_FILES = ("merges.txt", "vocab.json")
TOKENIZER_HUB = HubFiles(
    repository="openai/clip-vit-large-patch14", revision="32bd64288804d66eefd0ccbe215aa642df71cc41"
)


@dataclass(frozen=True, kw_only=True)
class Files:
    """What a unified method is made of: the checkpoint, and the folder with the files of CLIP's tokenizer."""

    checkpoint: Path
    tokenizer: Path

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file, by name."""
        from editar.checkpoint import file_digest

        tokens = {f"{TOKENIZER_FOLDER}/{name}": file_digest(self.tokenizer / name) for name in TOKENIZER_FILES}
        return {self.checkpoint.name: file_digest(self.checkpoint), **tokens}


def find(method: str, checkpoint: CheckpointFile, context: MethodContext) -> Files:
    """The method's files. Raises ValueError in the miniature suite, FileNotFoundError saying where to put what."""
    if context.suite == "miniature":
        raise ValueError(
            f"{method} has only its official weights, none for the miniature suite: name other --methods, or pass "
            "--suite paper"
        )
    return Files(checkpoint=_checkpoint(method, checkpoint, context.weights), tokenizer=_tokenizer(context.weights))


def _checkpoint(method: str, wanted: CheckpointFile, weights: Path | None) -> Path:
    if weights is not None and (weights / wanted.name).is_file():
        return weights / wanted.name
    if wanted.hub is not None and (cached := _cached(wanted.hub, wanted.name)) is not None:
        return cached
    raise FileNotFoundError(
        f"{method} needs {wanted.name}: fetch it from {wanted.source}, put it at {weights or 'DIR'}/{wanted.name} and "
        f"pass --weights {weights or 'DIR'}"
    )


def _tokenizer(weights: Path | None) -> Path:
    mine = None if weights is None else weights / TOKENIZER_FOLDER
    if mine is not None and all((mine / name).is_file() for name in TOKENIZER_FILES):
        return mine
    cached = [path for name in TOKENIZER_FILES if (path := _cached(TOKENIZER_HUB, name)) is not None]
    if len(cached) == len(TOKENIZER_FILES):
        return cached[0].parent
    raise FileNotFoundError(
        f"{' and '.join(TOKENIZER_FILES)} of CLIP's tokenizer are missing: fetch them from the hub's "
        f"{TOKENIZER_HUB.repository}, put them into {weights or 'DIR'}/{TOKENIZER_FOLDER} and pass --weights "
        f"{weights or 'DIR'}"
    )


def _cached(files: HubFiles, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(files.repository, name, revision=files.revision)
    return Path(path) if isinstance(path, str) else None
