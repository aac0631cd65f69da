"""Shards of a training set: numbered .npz files in a folder, each there whole or not at all."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from editar.io.atomic import replacing


def shard_path(folder: Path, index: int) -> Path:
    """Where shard `index` of a folder is."""
    return folder / f"{index:04d}.npz"


def write_missing(folder: Path, count: int, make: Callable[[int], Mapping[str, Any]]) -> None:
    """Write the arrays `make(index)` of every shard below `count` that `folder` lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(count), desc=folder.name):
        path = shard_path(folder, index)
        if path.exists():
            continue
        arrays = make(index)
        with replacing(path, writer="shards") as file:
            np.savez_compressed(file, **arrays)


def open_shards(folder: Path, count: int) -> list[Mapping[str, np.ndarray]]:
    """The arrays of `count` shards, each read when it is asked for.

    Raises FileNotFoundError that names the missing shards and the stage that makes them, which the folder is named for.
    """
    paths = [shard_path(folder, index) for index in range(count)]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{folder}: no {', '.join(missing)}; make them first (--stages {folder.name})")
    return [np.load(path, allow_pickle=False) for path in paths]
