"""Files and folders that a run reads: where they may lie, where they come from, their licence, sizes and digests.

Lookup order: the folder that the user names (`--weights DIR`), the caches of torch hub and of the Hugging Face hub, the
network. A copy of the user's is taken by its name, whatever it holds. What caches and the network hold must have the
published digest, where one is known.
"""

import hashlib
import tomllib
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from editar.io.atomic import replacing
from editar.io.digests import file_digest
from editar.io.foreign import what_it_is

CHUNK = 1 << 20
TIMEOUT = 30  # seconds without an answer
# What may stand in the place of what, in the order in which the libraries prefer them.
_ALTERNATIVES = (
    ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    ("model.safetensors", "pytorch_model.bin"),
)
_TOKENIZER = "tokenizer/"  # its files differ between versions of transformers, which says itself what it lacks


class NotFetched(Exception):
    """An asset that neither a cache nor the network has."""


@dataclass(frozen=True, kw_only=True)
class AssetFile:
    """One file of an asset, or a folder that is there or not as a whole.

    name: its place under the folder of weights (or of data). source: where it is published. size: its bytes as
    published, None where no public record of it was found. licence: "" where none is known. path: where it lies on this
    machine, None where it doesn't. comes: what a run does about it when it is not there: it fetches it, makes it, or
    asks the user for it.
    """

    name: str
    source: str = ""
    size: int | None = None
    licence: str = ""
    path: Path | None = None
    comes: Literal["fetched", "made", "given"] = "given"


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file, or a folder with the published `files` that are needed of it.

    name: its place under --weights; a single file may also lie right in that folder. url: of a file that torch hub's
    cache keeps. repository, revision, subfolder: its place on the Hugging Face hub; revision: a commit, which may be
    abbreviated; dataset: whether the repository is a data set. source: where the user gets what is not fetched.
    sizes: the published bytes of those files that are known, by their names (of a single file: the name alone).
    main: the file of a folder that holds the weights; a user's copy may lack the others. sha256: the published digest
    of it or of the single file, or the beginning of that; "" where none is published.
    """

    name: str
    files: tuple[str, ...] = ()
    url: str = ""
    repository: str = ""
    revision: str = ""
    subfolder: str = ""
    dataset: bool = False
    source: str = ""
    licence: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    main: str = ""
    sha256: str = ""

    def locate(self, weights: Path | None) -> tuple[AssetFile, ...]:
        """Each file, and where it lies: looked for as `find` does, without asking the network."""
        mine = self._mine(weights)
        if not self.files:
            name = self.name if mine is None or weights is None else mine.relative_to(weights).as_posix()
            return (self._file(name, self._filename, mine or self._cached(self._filename), mine),)
        paths = {file: self._cached(file) if mine is None else _first(mine / file) for file in self.files}
        return tuple(
            self._file(f"{self.name}/{file}", file, path, mine)
            for file, path in paths.items()
            if path is not None or mine is None or not self._may_lack(file, mine)
        )

    def find(self, weights: Path | None = None, *, endpoint: str | None = None) -> Path:
        """The file, or the folder with all its files; fetched if need be.

        weights: the user's folder, or None. endpoint: instead of the hub's own. Raises FileNotFoundError that says what
        to put where; ValueError where what a cache or the network holds has another digest than the published one.
        """
        mine = self._mine(weights)
        if mine is not None:
            self.used_files(mine)
            return mine
        try:
            place = self._fetch_url() if self.url else self.fetch(endpoint=endpoint)
        except (NotFetched, OSError) as error:
            raise FileNotFoundError(self._remedy(weights, error)) from error
        path = place / self.main  # as published, though libraries may prefer what lies beside it
        if self.sha256 and not (digest := file_digest(path)).startswith(self.sha256):
            path.resolve().unlink()  # the hub's cache keeps the file behind a link
            path.unlink(missing_ok=True)
            raise ValueError(
                f"{path} was damaged (sha256 {digest}, published {self.sha256}) and is deleted: start again"
            )
        return place

    def fetch(
        self, *, endpoint: str | None = None, cache: Path | None = None, check: Callable[[Path], Any] | None = None
    ) -> Path:
        """The file or folder in the hub's cache; what is not there yet is downloaded, or taken up where it broke off.

        endpoint, cache: instead of the hub's own. check: raises an error where a folder lacks something, by default one
        of `files`. Raises NotFetched.
        """
        from huggingface_hub import snapshot_download

        if not self.repository:
            raise NotFetched("no address of it is known")
        prefix = f"{self.subfolder}/" if self.subfolder else ""

        def snapshot(local: bool) -> Path:
            folder = snapshot_download(
                self.repository,
                repo_type=self._kind,
                revision=self._commit(cache, endpoint),
                allow_patterns=[prefix + file for file in self.files or (self._filename,)],
                cache_dir=cache,
                endpoint=endpoint,
                local_files_only=local,
            )
            place = Path(folder) / self.subfolder / ("" if self.files else self._filename)
            (check or self._require_all)(place)
            return place

        # Whatever fails (huggingface_hub has its own kinds of errors, and its HTTP library others), the cache may be
        # whole, and whatever the cache lacks, the hub may have.
        try:
            return snapshot(local=True)
        except Exception:
            pass
        try:
            return snapshot(local=False)
        except Exception as error:
            raise NotFetched(str(error)) from error

    def used_files(self, place: Path) -> list[Path]:
        """What is loaded of the copy at `place`. Raises FileNotFoundError that names everything that is
        missing, and ValueError for what was fetched in the place of a file: see `what_it_is`."""
        if not self.files:
            self._require_all(place)
            _refuse_foreign([place])
            return [place]
        demanded = (file for file in self.files if not self._may_lack(file, place))
        self._refuse(place, [file for file in demanded if _first(place / file) is None])
        files = (_first(place / file) for file in self.files if not file.startswith(_TOKENIZER))
        found = [path for path in files if path is not None]
        _refuse_foreign(found)
        return found + sorted(path for path in (place / _TOKENIZER).glob("*") if path.is_file())

    def main_file(self, place: Path) -> Path:
        """The file with the weights of the copy at `place`, to which `sha256` belongs."""
        return _first(place / self.main) or place / self.main if self.main else place

    def digests(self, place: Path) -> dict[str, str]:
        """The SHA-256 of every file that is loaded of the copy at `place`, by name and file."""
        if not self.files:
            return {place.name: file_digest(place)}
        used = self.used_files(place)
        return {f"{self.name}/{path.relative_to(place).as_posix()}": file_digest(path) for path in used}

    def snapshots(self, cache: Path | None = None) -> list[Path]:
        """The folders of this revision in the hub's cache, whole or not."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        name = repo_folder_name(repo_id=self.repository, repo_type=self._kind)
        return sorted((Path(cache or constants.HF_HUB_CACHE) / name / "snapshots").glob(f"{self.revision}*"))

    @property
    def origin(self) -> str:
        """Where it is published, in a few words."""
        if not self.repository:
            return self.url or self.source
        revision = f" @ {self.revision[:7]}" if self.revision else ""
        return f"hub: {'datasets/' if self.dataset else ''}{self.repository}{revision}"

    @property
    def _kind(self) -> str:
        return "dataset" if self.dataset else "model"

    @property
    def _filename(self) -> str:
        return self.name.rpartition("/")[2]

    def _file(self, name: str, file: str, path: Path | None, mine: Path | None) -> AssetFile:
        fetched = mine is None and bool(self.url or self.repository)
        return AssetFile(
            name=name,
            source=self.origin,
            size=self.sizes.get(file),
            licence=self.licence,
            path=path,
            comes="fetched" if fetched else "given",
        )

    def _mine(self, weights: Path | None) -> Path | None:
        """The user's copy, whole or not."""
        if weights is None:
            return None
        if self.files:
            return weights / self.name if (weights / self.name).is_dir() else None
        return next((path for path in (weights / self._filename, weights / self.name) if path.is_file()), None)

    def _may_lack(self, file: str, place: Path) -> bool:
        if file.startswith(_TOKENIZER):
            return (place / _TOKENIZER).is_dir()
        return self.main not in ("", file)

    def _require_all(self, place: Path) -> None:
        """Of what caches hold: all published files."""
        self._refuse(place, [file for file in self.files or ("",) if not (place / file).exists()])

    def _refuse(self, place: Path, absent: Sequence[str]) -> None:
        if absent and not self.files:
            raise FileNotFoundError(f"there is no {place}")
        if absent:
            names = dict.fromkeys(_TOKENIZER if file.startswith(_TOKENIZER) else file for file in absent)
            source = f" of the hub's {self.repository} (revision {self.revision})" if self.repository else ""
            raise FileNotFoundError(f"{place} lacks {', '.join(names)}; put the whole folder{source} there")

    def _cached(self, file: str) -> Path | None:
        """Where a cache has a file."""
        if self.url:
            return path if (path := self._torch_hub()).is_file() else None
        if not self.repository:
            return None
        from huggingface_hub import try_to_load_from_cache

        name = f"{self.subfolder}/{file}" if self.subfolder else file
        found = try_to_load_from_cache(self.repository, name, revision=self.revision or None, repo_type=self._kind)
        return Path(found) if isinstance(found, str) else None

    def _torch_hub(self) -> Path:
        import torch

        return Path(torch.hub.get_dir()) / "checkpoints" / self._filename

    def _commit(self, cache: Path | None, endpoint: str | None) -> str | None:
        """The whole commit id, which downloads need; where only its beginning is known, from the cache or the hub."""
        if not self.revision or len(self.revision) == 40:
            return self.revision or None
        if found := self.snapshots(cache):
            return found[0].name
        from huggingface_hub import HfApi

        for commit in HfApi(endpoint=endpoint).list_repo_commits(self.repository, repo_type=self._kind):
            if commit.commit_id.startswith(self.revision):
                return commit.commit_id
        raise NotFetched(f"{self.repository} has no commit {self.revision} any more")

    def _fetch_url(self) -> Path:
        """Only a whole file with the right digest gets the name. Raises NotFetched, OSError and ValueError."""
        from tqdm import tqdm

        target = self._torch_hub()
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(self.url, timeout=TIMEOUT) as answer:
            size, digest = int(answer.headers.get("Content-Length") or 0), hashlib.sha256()
            bar = tqdm(total=size or None, unit="B", unit_scale=True, desc=self._filename)
            with replacing(target) as file, bar:
                for chunk in self._received(answer, size):
                    file.write(chunk)
                    digest.update(chunk)
                    bar.update(len(chunk))
                if not digest.hexdigest().startswith(self.sha256):
                    raise ValueError(
                        f"{self.url}: sha256 {digest.hexdigest()} is not the published {self.sha256}; refused"
                    )
        return target

    def _received(self, answer: Any, size: int) -> Iterator[bytes]:
        received = 0
        try:
            while chunk := answer.read(CHUNK):
                received += len(chunk)
                yield chunk
        except OSError as error:  # a timeout, say: no fault of the file that is being written
            raise NotFetched(f"{self.url} broke off: {error}") from error
        if size and received != size:
            raise NotFetched(f"{self.url} broke off after {received} of {size} bytes")

    def _remedy(self, weights: Path | None, error: Exception) -> str:
        place = f"{weights or 'DIR'}/{self.name}"
        where = "" if weights else " and pass --weights DIR"
        if not (self.url or self.repository):
            remedy = f": fetch it from {self.source}, and put it there" if self.source else "; put it there"
            return f"there is no {place}{remedy}{where}"
        if self.url:
            what, them = f"it from {self.url}", "it"
        else:
            inside = f" in {self.subfolder}" if self.subfolder else ""
            what = f"{', '.join(self.files) or self._filename} of the hub's {self.repository} (revision "
            what, them = f"{what}{self.revision}){inside}", "them" if self.files else "it"
        return (
            f"{self.name} is neither under --weights nor in a cache, and could not be fetched: {error}. Fetch {what} "
            f"where there is a network, put {them} at {place}{where}."
        )


def read_assets(path: Path) -> dict[str, Asset]:
    """The assets in a TOML file, by their tables' names, which are the assets' too unless they have another.

    Their fields are those of `Asset`; `files` may be the name of a list in the file's table `files`.
    """
    tables = tomllib.loads(path.read_text("utf-8"))
    lists = tables.pop("files", {})
    assets = {}
    for name, table in tables.items():
        files = table.pop("files", ())
        files = tuple(lists[files] if isinstance(files, str) else files)
        assets[name] = Asset(**{"name": name, **table, "files": files})
    return assets


def locate(assets: Iterable[Asset], weights: Path | None) -> tuple[AssetFile, ...]:
    """The files of several assets, see `Asset.locate`."""
    return tuple(file for asset in assets for file in asset.locate(weights))


def digests(assets: Iterable[Asset], weights: Path | None) -> dict[str, str]:
    """The SHA-256 of every file that is loaded of several assets, which are found or fetched, see `Asset.digests`."""
    return {name: digest for asset in assets for name, digest in asset.digests(asset.find(weights)).items()}


def _refuse_foreign(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_file() and (what := what_it_is(path)):
            raise ValueError(f"{path}: {what}; fetch it again")


def _first(path: Path) -> Path | None:
    """The file or folder, or what may stand in its place."""
    names = next((names for names in _ALTERNATIVES if path.name in names), (path.name,))
    return next((each for name in names if (each := path.with_name(name)).exists()), None)
