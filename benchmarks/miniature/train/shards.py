"""Shards of a training set: numbered .npz files in a folder, each there whole or not at all, and their rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from editar.io.digests import is_intact, is_reusable, replacing_checked


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Tensors with one row an example; a field may be None. Subclasses say which there are."""

    @classmethod
    def join(cls, shards: Sequence[Mapping[str, np.ndarray]], **names: str | None) -> Self:
        """Shards as one. names: of the arrays, by field, where they are called otherwise; None leaves the field out."""
        arrays = {field.name: field.name for field in fields(cls)} | names
        return cls(**{name: joined(shards, array) if array else None for name, array in arrays.items()})

    def pick(self, rows: Tensor, device: str = "cpu") -> Self:
        """Some rows, as the networks take them: float16 as float32, int16 as int64, uint8 as float32 in [0, 1]."""

        def take(tensor: Tensor) -> Tensor:
            part = tensor[rows].to(device)
            if tensor.dtype == torch.uint8:
                return part.float() / 255
            return part.to({torch.float16: torch.float32, torch.int16: torch.int64}.get(tensor.dtype, tensor.dtype))

        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: None if each is None else take(each) for name, each in tensors.items()})

    def draw(self, seed: int, size: int, device: str, step: int) -> Self:
        """`size` rows, a function of (seed, step) alone."""
        count = len(getattr(self, fields(self)[0].name))
        generator = torch.Generator().manual_seed((seed << 32) + step)
        return self.pick(torch.randint(count, (size,), generator=generator), device)


def joined(shards: Sequence[Mapping[str, np.ndarray]], name: str) -> Tensor:
    """An array of all shards as one tensor; uint16 becomes int64."""
    array = np.concatenate([shard[name] for shard in shards])
    return torch.from_numpy(array.astype(np.int64) if array.dtype == np.uint16 else array)


def shard_path(folder: Path, index: int) -> Path:
    """Where shard `index` of a folder is."""
    return folder / f"{index:04d}.npz"


def write_missing(folder: Path, count: int, make: Callable[[int], Mapping[str, Any]]) -> None:
    """Write the arrays `make(index)` of every shard below `count` that `folder` lacks, or that was damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(count), desc=folder.name):
        path = shard_path(folder, index)
        if is_reusable(path):
            continue
        arrays = make(index)
        with replacing_checked(path, writer="shards") as file:
            np.savez_compressed(file, **arrays)


def open_shards(folder: Path, count: int) -> list[Mapping[str, np.ndarray]]:
    """The arrays of `count` shards, each read when it is asked for.

    Raises FileNotFoundError that names the missing shards and the stage that makes them, which the folder is named for,
    and ValueError that names a damaged one.
    """
    paths = [shard_path(folder, index) for index in range(count)]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{folder}: no {', '.join(missing)}; make them first (--stages {folder.name})")
    return [open_shard(path) for path in paths]


def open_shard(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of a shard, each read when it is asked for. Raises ValueError where the file is damaged."""
    if not is_intact(path):
        raise ValueError(f"{path} is damaged; make it again (--stages {path.parent.name})")
    return np.load(path, allow_pickle=False)
