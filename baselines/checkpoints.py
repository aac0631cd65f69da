"""Networks in the folder layout of diffusers: where they are published, and how a copy is found.

Lookup order: the folder the user names (`--weights DIR`), in it by `name`; the hub's cache; the hub. A folder of the
user is taken by its name, whatever it holds, and the digests of its files are recorded; the hub's are pinned.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from baselines.method import Unsupported
from baselines.needs import NeededFile
from editar.io.digests import file_digest

NETWORK_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
PIPELINE_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
# In bytes: the files that all repositories of Stable Diffusion 1.x share. These sizes and the others of such folders
# are those of the large-file records in copies of the repositories.
STABLE_DIFFUSION_SIZES = {
    "tokenizer/merges.txt": 524_619,
    "tokenizer/special_tokens_map.json": 472,
    "tokenizer/tokenizer_config.json": 806,
    "tokenizer/vocab.json": 1_059_962,
    "vae/diffusion_pytorch_model.safetensors": 334_643_276,
}
# What may stand in the place of what, in the order in which the libraries prefer them.
_ALTERNATIVES = (
    ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    ("model.safetensors", "pytorch_model.bin"),
)
_TOKENIZER = "tokenizer/"  # its files differ between versions of transformers, which says itself what it lacks


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One folder: a network, or a whole pipeline.

    name: its place under --weights: the last part of the repository's name, and the subfolder. repository, revision,
    subfolder: its place on the Hugging Face hub, repository "" where it isn't there; revision: a commit. files: the
    published ones that are needed, below the subfolder. sizes: the published bytes of those of them that are known.
    """

    name: str
    files: tuple[str, ...] = NETWORK_FILES
    repository: str = ""
    revision: str = ""
    subfolder: str = ""
    licence: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)

    def needed(self, weights: Path | None) -> tuple[NeededFile, ...]:
        """The files, and where they are on this machine: looked for as `find` does, without asking the network."""
        mine = None if weights is None else weights / self.name
        if mine is not None and mine.is_dir():
            paths = {file: next(filter(Path.is_file, _candidates(mine / file)), None) for file in self.files}
            if (mine / _TOKENIZER).is_dir():
                paths = {file: path for file, path in paths.items() if path or not file.startswith(_TOKENIZER)}
        else:
            paths = {file: self._cached(file) for file in self.files}
        fetched = bool(self.repository) and (mine is None or not mine.is_dir())
        revision = f" @ {self.revision[:7]}" if self.revision else ""
        return tuple(
            NeededFile(
                name=f"{self.name}/{file}",
                source=f"hub: {self.repository}{revision}" if self.repository else "",
                size=self.sizes.get(file),
                licence=self.licence,
                path=path,
                comes="fetched" if fetched else "given",
            )
            for file, path in paths.items()
        )

    def used_files(self, folder: Path) -> list[Path]:
        """What is loaded of a copy in `folder`. Raises FileNotFoundError that names everything that is missing."""
        missing, found = [], sorted(path for path in (folder / _TOKENIZER).glob("*") if path.is_file())
        for file in self.files:
            if not file.startswith(_TOKENIZER):
                paths = [path for path in _candidates(folder / file) if path.is_file()]
                found += paths[:1]
                missing += [] if paths else [file]
        if any(file.startswith(_TOKENIZER) for file in self.files) and not (folder / _TOKENIZER).is_dir():
            missing.append(_TOKENIZER)
        if missing:
            source = f" of the hub's {self._source}" if self.repository else ""
            raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; put the whole folder{source} there")
        return found

    def digests(self, folder: Path) -> dict[str, str]:
        """The SHA-256 of every file that is loaded of a copy in `folder`, by name and file."""
        return {
            f"{self.name}/{path.relative_to(folder).as_posix()}": file_digest(path) for path in self.used_files(folder)
        }

    def _cached(self, file: str) -> Path | None:
        """Where the hub's cache has a file."""
        from huggingface_hub import try_to_load_from_cache

        if not self.repository:
            return None
        name = f"{self.subfolder}/{file}" if self.subfolder else file
        found = try_to_load_from_cache(self.repository, name, revision=self.revision or None)
        return Path(found) if isinstance(found, str) else None

    @property
    def _source(self) -> str:
        return f"{self.repository} (revision {self.revision})"


def miniature_weights(weights: Path | None) -> Path:
    """The folder that holds the miniature's `diffusion/`: the user's, else the suite's own.

    Raises Unsupported where the suite's own has not been made.
    """
    if weights is not None:
        return weights
    from editar.pipeline import miniature_weights as editar_weights

    own = editar_weights().parent
    if not (own / "diffusion").is_dir():
        raise Unsupported(
            "the miniature's diffusion networks are not there; python -m benchmarks.miniature.build_diffusion trains "
            "them"
        )
    return own


def find(checkpoint: Checkpoint, weights: Path | None, *, endpoint: str | None = None) -> Path:
    """The folder of `checkpoint`, whole, fetched if need be.

    weights: the user's folder, or None. endpoint: instead of the hub's own. Raises FileNotFoundError that says what to
    put where.
    """
    mine = None if weights is None else weights / checkpoint.name
    if mine is not None and mine.is_dir():
        checkpoint.used_files(mine)
        return mine
    place = mine if mine is not None else Path("DIR") / checkpoint.name
    if not checkpoint.repository:
        raise FileNotFoundError(f"there is no {place}, and {checkpoint.name} is not on the hub")
    try:
        return _from_hub(checkpoint, endpoint)
    except Exception as error:  # huggingface_hub has its own kinds of errors, and its HTTP library others
        where = "" if mine is not None else " and pass --weights DIR"
        raise FileNotFoundError(
            f"{checkpoint.name} is neither under --weights nor in the hub's cache, and could not be fetched: {error}. "
            f"Fetch {', '.join(checkpoint.files)} of the hub's {checkpoint._source}"
            f"{' in ' + checkpoint.subfolder if checkpoint.subfolder else ''} where there is a network, put them at "
            f"{place}{where}."
        ) from error


def _candidates(path: Path) -> Iterator[Path]:
    for names in _ALTERNATIVES:
        if path.name in names:
            yield from (path.with_name(name) for name in names)
            return
    yield path


def _from_hub(checkpoint: Checkpoint, endpoint: str | None) -> Path:
    from huggingface_hub import snapshot_download

    prefix = f"{checkpoint.subfolder}/" if checkpoint.subfolder else ""

    def snapshot(local: bool) -> Path:
        folder = snapshot_download(
            checkpoint.repository,
            revision=checkpoint.revision,
            allow_patterns=[prefix + file for file in checkpoint.files],
            endpoint=endpoint,
            local_files_only=local,
        )
        whole = Path(folder) / checkpoint.subfolder
        checkpoint.used_files(whole)
        return whole

    try:
        return snapshot(local=True)
    except Exception:  # whatever fails, the hub may have what the cache lacks
        return snapshot(local=False)
