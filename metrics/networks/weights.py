"""Where the official weights come from: names, addresses, digests, licences, and how a file of them is found.

Lookup order: the folder the user names (`--weights DIR`), the caches of torch hub and the Hugging Face hub, the net.
A file in the user's folder is taken by its name, whatever it holds; its digest is recorded, and where it is not the
published one the network counts as unofficial. Everything else must have the published digest.
"""

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from editar.io.digests import file_digest

CHUNK = 1 << 20
TIMEOUT = 30  # seconds without an answer
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a folder, in the order in which they are taken


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One file, kept in torch hub's cache.

    sha256: the published digest, or its beginning where the publisher states no more, or None where nothing is stated
    (then the file's own is only recorded). size: in bytes, None where no record of it was found.
    """

    name: str
    url: str
    sha256: str | None
    licence: str
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class HubFolder:
    """A model of the Hugging Face hub at a pinned revision, kept in the hub's cache.

    weights: the file with the weights, to which sha256 and size (bytes, None where unknown) belong; files: the others
    that are needed.
    """

    name: str
    repository: str
    revision: str
    weights: str
    files: tuple[str, ...]
    sha256: str
    licence: str
    size: int | None = None
    endpoint: str | None = None

    @property
    def all_files(self) -> tuple[str, ...]:
        return *self.files, self.weights


# Meta publishes no digest of this file, and its name carries none.
DINO_VITB8 = WeightFile(
    name="dino_vitbase8_pretrain.pth",
    url="https://dl.fbaipublicfiles.com/dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth",
    sha256=None,
    licence="Apache-2.0 (facebookresearch/dino)",
)
SQUEEZENET = WeightFile(
    name="squeezenet1_1-b8a52dc0.pth",
    url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
    sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    licence="BSD-3-Clause (pytorch/vision); the LPIPS heads BSD-2-Clause (richzhang/PerceptualSimilarity)",
    size=4_958_839,
)
CLIP_VIT_L14 = HubFolder(
    name="clip-vit-large-patch14",
    repository="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    weights="model.safetensors",
    files=(
        "config.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ),
    sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    licence="MIT (openai/CLIP)",
    size=1_710_540_580,
)
# The digest is that of the hub's large-file record at this revision; the weights have not changed since.
DPT_LARGE = HubFolder(
    name="dpt-large",
    repository="Intel/dpt-large",
    revision="755bcbcb26ef6d8ae380fef8b193bd60bc729026",
    weights="pytorch_model.bin",
    files=("config.json", "preprocessor_config.json"),
    sha256="71150941604c39c1c770a72a7b2f56487669f0e3a4d99c8759e233fb1be24080",
    licence="Apache-2.0 (Intel/dpt-large, isl-org/DPT)",
)
# mmsegmentation publishes the first eight digits of the digest, at the end of the file's name.
DEEPLABV3_R101 = WeightFile(
    name="deeplabv3_r101-d8_512x512_4x4_320k_coco-stuff164k_20210709_155402-3cbca14d.pth",
    url="https://download.openmmlab.com/mmsegmentation/v0.5/deeplabv3/"
    "deeplabv3_r101-d8_512x512_4x4_320k_coco-stuff164k/"
    "deeplabv3_r101-d8_512x512_4x4_320k_coco-stuff164k_20210709_155402-3cbca14d.pth",
    sha256="3cbca14d",
    licence="Apache-2.0 (open-mmlab/mmsegmentation)",
)
# NVIDIA states no digest. This is the one that several independent projects pin for this very address (k-diffusion
# among them) and that copies of the file on the hub have.
INCEPTION = WeightFile(
    name="inception-2015-12-05.pt",
    url="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    licence="Apache-2.0 (TensorFlow's graph); NVIDIA Source Code License (NVlabs/stylegan2-ada-pytorch's translation)",
    size=95_607_719,
)

# What the official networks are made of, of PIE-Bench and of each task of the translation benchmarks.
PIE_BENCH = (DINO_VITB8, SQUEEZENET, CLIP_VIT_L14)
TRANSLATION = {
    "depth": (INCEPTION, DPT_LARGE),
    "canny": (INCEPTION,),
    "segmentation": (INCEPTION, DEEPLABV3_R101),
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """path: the file with the weights. official: False where its digest is known not to be the published one."""

    path: Path
    digest: str
    official: bool

    @property
    def folder(self) -> Path:
        return self.path.parent

    def label(self, name: str) -> str:
        """`name`, or `name@` and the digest's beginning for weights that are not the published ones."""
        return name if self.official else f"{name}@{self.digest[:8]}"


def find(item: WeightFile | HubFolder, weights: Path | None = None) -> Found:
    """The weights of `item`, fetched if need be.

    weights: the user's folder, or None. Raises FileNotFoundError saying where to put what, if it is nowhere and cannot
    be fetched; ValueError if what the cache or the network holds has another digest than the published one.
    """
    mine = None if weights is None else weights / item.name
    if mine is not None and mine.exists():
        path = mine if isinstance(item, WeightFile) else _weights_in(mine)
        digest = file_digest(path)
        return Found(path=path, digest=digest, official=_is_published(item, digest))
    path = _file(item, mine) if isinstance(item, WeightFile) else _folder(item, mine)
    digest = file_digest(path)
    if not _is_published(item, digest):
        path.resolve().unlink()  # the hub's cache keeps the file behind a link
        path.unlink(missing_ok=True)
        raise ValueError(f"{path} was damaged (sha256 {digest}, published {item.sha256}) and is deleted: start again")
    return Found(path=path, digest=digest, official=True)


def locate(item: WeightFile | HubFolder, weights: Path | None = None) -> dict[str, Path | None]:
    """The files of `item` by their places under --weights, and where they are; looked for as `find` does, without
    asking the network. Of a folder of the user only the weights are looked for."""
    mine = None if weights is None else weights / item.name
    if isinstance(item, WeightFile):
        places = [_cached(item)] if mine is None else [mine, _cached(item)]
        return {item.name: next(filter(Path.is_file, places), None)}
    if mine is not None and mine.exists():
        found = next((mine / name for name in WEIGHTS if (mine / name).is_file()), None)
        return {f"{item.name}/{item.weights}": found}
    from huggingface_hub import try_to_load_from_cache

    cached = {name: try_to_load_from_cache(item.repository, name, revision=item.revision) for name in item.all_files}
    return {f"{item.name}/{name}": Path(path) if isinstance(path, str) else None for name, path in cached.items()}


def _is_published(item: WeightFile | HubFolder, digest: str) -> bool:
    return item.sha256 is None or digest.startswith(item.sha256)


def _weights_in(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds neither {' nor '.join(WEIGHTS)}")


def _file(item: WeightFile, mine: Path | None) -> Path:
    cached = _cached(item)
    if not cached.is_file():
        try:
            _download(item, cached)
        except (urllib.error.URLError, OSError) as error:
            raise _missing(item.name, item.url, mine, cached, error) from error
    return cached


def _cached(item: WeightFile) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / item.name


def _folder(item: HubFolder, mine: Path | None) -> Path:
    """huggingface_hub looks into its cache first, and shows its own progress bar where it fetches."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        for name in item.all_files:
            path = hf_hub_download(item.repository, name, revision=item.revision, endpoint=item.endpoint)
    except OSError as error:  # huggingface_hub's errors are OSErrors or FileNotFoundErrors
        raise _missing(item.name, f"the hub's {item.repository}", mine, Path(HF_HUB_CACHE), error) from error
    return Path(path)


def _missing(name: str, source: str, mine: Path | None, cache: Path, error: Exception) -> FileNotFoundError:
    place = mine if mine is not None else f"DIR/{name}"
    where = "" if mine is not None else " and pass --weights DIR"
    return FileNotFoundError(
        f"{name} is neither under --weights nor in the cache ({cache}), and could not be fetched: {error}. "
        f"Fetch it where there is a network, from {source}, put it at {place}{where}."
    )


def _download(item: WeightFile, target: Path) -> None:
    """Stream to a temporary file beside the target; only a whole file with the right digest gets the name."""
    from tqdm import tqdm

    target.parent.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(item.url, timeout=TIMEOUT) as answer:
        size = int(answer.headers.get("Content-Length") or 0)
        handle, partial = tempfile.mkstemp(dir=target.parent, prefix=item.name + ".")
        digest, received = hashlib.sha256(), 0
        try:
            with (
                os.fdopen(handle, "wb") as file,
                tqdm(total=size or None, unit="B", unit_scale=True, desc=item.name) as bar,
            ):
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    bar.update(len(chunk))
            if size and received != size:
                raise OSError(f"{item.url} broke off after {received} of {size} bytes")
            if not _is_published(item, digest.hexdigest()):
                raise ValueError(f"{item.url}: sha256 {digest.hexdigest()} is not the published {item.sha256}; refused")
            os.replace(partial, target)
        finally:
            Path(partial).unlink(missing_ok=True)
