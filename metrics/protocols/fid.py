"""From image files to FID: the features of files that a caller names, and what they are compared with.

Only listed files are read, never a folder: what else lies there cannot get into an FID. References are kept in
clean-fid's format, an .npz file with mu and sigma, so that its published statistics serve as they are.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from editar.io.assets import Asset
from editar.io.digests import file_digest, is_reusable, json_digest, list_digest, replacing_checked
from editar.io.image_files import ImageError, open_image
from metrics.functional.frechet import FeatureStatistics, FeatureSums
from metrics.networks.backbones import FeatureBackbone

MAX_PIXELS = 1 << 26
MAX_BYTES = 1 << 30  # of an array of statistics; those of 2048 features take 32 MiB
CLEAN_FID_STATISTICS = "https://www.cs.cmu.edu/~clean-fid/stats"  # as cleanfid.features has it
WORKERS = min(16, os.cpu_count() or 1)  # more would wait for Python's lock


@dataclass(frozen=True, kw_only=True)
class FidReference:
    """What images are compared with. digest: of the real images, or of the file with their statistics, whose name
    `file` is; file is None where images were read."""

    statistics: FeatureStatistics
    digest: str
    file: str | None = None


def sums_of_files(files: Sequence[Path], network: FeatureBackbone, workers: int = WORKERS) -> FeatureSums:
    """Features of all files, summed. Raises ValueError naming a file that is listed twice or cannot be read."""
    sums = FeatureSums(network.dimension, network.device)
    for batch in prepared_batches(files, network, workers):
        sums.update(network.features(batch))
    return sums


def features_of_files(files: Sequence[Path], network: FeatureBackbone) -> Tensor:
    """(n, D) on the CPU, in the order of the files. Raises ValueError as `sums_of_files`."""
    return torch.cat([network.features(batch).cpu() for batch in prepared_batches(files, network)])


def reference_of_files(files: Sequence[Path], network: FeatureBackbone, cache: Path) -> FidReference:
    """The statistics of real images; computed once for each digest of the images and network.

    cache: a folder, made if need be; 34 MB a reference with the official network.
    """
    digest = images_digest(files)
    path = cache / f"fid-{json_digest([network.name, network.digest, digest])}.npz"
    if not is_reusable(path):
        write_statistics(path, sums_of_files(files, network).statistics())
    return FidReference(statistics=read_statistics(path), digest=digest)


def reference_of_statistics(choice: str, network: FeatureBackbone, weights: Path | None = None) -> FidReference:
    """Published statistics: an .npz file, or the name of one that clean-fid publishes for its mode "clean", such as
    cifar10_clean_train_32, which is looked for in `weights` and a cache before it is fetched.

    Raises ValueError for a file without statistics of the network's number of features, FileNotFoundError for one that
    cannot be fetched.
    """
    path = Path(choice)
    if path.suffix != ".npz":
        if "_clean_" not in choice:  # its other modes resize in other ways
            raise ValueError(f"--fid-reference is {choice!r}; it must be an .npz file or a NAME_clean_SPLIT_SIZE")
        path = Asset(name=f"{choice}.npz", url=f"{CLEAN_FID_STATISTICS}/{choice}.npz").find(weights)
    statistics = read_statistics(path)
    if len(statistics.mean) != network.dimension:
        raise ValueError(
            f"{path} has statistics of {len(statistics.mean)} features, {network.name} has {network.dimension}: they "
            "are of another network (--fid-reference)"
        )
    return FidReference(statistics=statistics, digest=file_digest(path), file=path.name)


def read_statistics(path: Path) -> FeatureStatistics:
    """An .npz file as clean-fid has them: mu (D,), sigma (D, D), and here also `images`, their number.

    Nothing in the file is executed: pickled objects are refused. Raises ValueError that names the file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            if large := [each.filename for each in content.zip.infolist() if each.file_size > MAX_BYTES]:
                raise ValueError(f"{large[0]} in it is larger than {MAX_BYTES} bytes")
            mean, covariance = (torch.from_numpy(content[name]).double() for name in ("mu", "sigma"))
            images = int(content["images"]) if "images" in content else None
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, MemoryError, BadZipFile) as error:
        raise ValueError(f"{path} can't be read as an .npz of statistics, mu and sigma: {error}") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"{path}: mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)} must be (D,) and (D, D)")
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise ValueError(f"{path}: mu and sigma must be finite")
    return FeatureStatistics(mean=mean, covariance=covariance, images=images)


def write_statistics(path: Path, statistics: FeatureStatistics) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"mu": statistics.mean.numpy(), "sigma": statistics.covariance.numpy()}
    if statistics.images is not None:
        arrays["images"] = np.array(statistics.images)
    with replacing_checked(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def images_digest(files: Sequence[Path]) -> str:
    """sha256 over the sorted sha256 of the files' contents: neither names nor order matter, as they don't to FID."""
    _check(files)
    return list_digest(sorted(map(file_digest, files)))


def prepared_batches(files: Sequence[Path], network: FeatureBackbone, workers: int = WORKERS) -> Iterator[Tensor]:
    """Batches for `network.features`, in order. Threads decode and resize while the caller's network computes.

    Threads do, because PIL works without Python's lock; nothing has to be copied between processes. At most two batches
    are kept ahead. workers 0 does the same work in turn with the network's.
    """
    _check(files)
    remaining = iter(files)
    if not workers:
        while paths := list(islice(remaining, network.batch)):
            yield _stack([_prepare(path, network) for path in paths])
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fid")
    try:
        ahead: deque[Future[np.ndarray]] = deque()
        ahead.extend(pool.submit(_prepare, path, network) for path in islice(remaining, 2 * network.batch))
        while ahead:
            part = [ahead.popleft().result() for _ in range(min(network.batch, len(ahead)))]
            ahead.extend(pool.submit(_prepare, path, network) for path in islice(remaining, len(part)))
            yield _stack(part)
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(path: Path, network: FeatureBackbone) -> np.ndarray:
    try:
        # clean-fid drops transparency.
        return network.prepare(open_image(path, max_pixels=MAX_PIXELS, on_white=False))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _stack(prepared: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(prepared))


def _check(files: Sequence[Path]) -> None:
    if not files:
        raise ValueError("FID needs images: the list of files is empty")
    seen: set[Path] = set()
    for path in files:
        if path in seen:
            raise ValueError(f"{path} is listed twice")
        if not path.is_file():
            raise ValueError(f"{path} is not a file: FID reads the listed files, no folders")
        seen.add(path)
