"""Sums of features over lists of image files: digests, reading ahead of the network, and the cache of references.

Only the files that a caller names are read, never a folder: what else lies there cannot get into an FID.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from editar.io.digests import file_digest, json_digest, list_digest
from editar.io.image_files import ImageError, decode_image
from metrics.functional.frechet import FeatureSums
from metrics.networks.backbones import FeatureBackbone

MAX_PIXELS = 1 << 26
WORKERS = min(16, os.cpu_count() or 1)  # more would wait for Python's lock


def sums_of_files(files: Sequence[Path], network: FeatureBackbone, workers: int = WORKERS) -> FeatureSums:
    """Features of all files, summed. Raises ValueError naming a file that is listed twice or cannot be read."""
    sums = FeatureSums(network.dimension, network.device)
    for batch in prepared_batches(files, network, workers):
        sums.update(network.features(batch))
    return sums


def reference_of_files(
    files: Sequence[Path], network: FeatureBackbone, cache: Path, workers: int = WORKERS
) -> tuple[FeatureSums, str]:
    """The sums over reference images and the images' digest; computed once for each digest and network.

    cache: a folder, made if need be; 100 MB a reference with the official network.
    """
    digest = images_digest(files)
    key = json_digest([network.name, network.digest, digest])
    path = cache / f"fid-{key}.safetensors"
    if not path.is_file():
        sums_of_files(files, network, workers).save(path)
    return FeatureSums.load(path), digest


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
        return network.prepare(decode_image(path, max_pixels=MAX_PIXELS))
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
