"""Shared checkpoints of torch.distributed, read without running what they may hold.

PyTorch's own reader unpickles the file `.metadata` with no check, and whatever that file calls no tensor too: a folder
from somebody else would run their code as soon as a training is resumed from it.
"""

import pickle
from pathlib import Path, PurePath
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata, StorageMeta, TensorStorageMetadata

from editar.io.tensors import CheckpointError, unfolded_bytes

METADATA = ".metadata"
_NAMES = {
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "collections": {"OrderedDict"},
}  # fmt: skip


class TensorReader(FileSystemReader):
    """Reads tensors, out of files in the folder itself."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError where `.metadata` says more."""
        super().__init__(folder)
        self._metadata = _read(folder / METADATA)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        storage = self._metadata.storage_meta = self._metadata.storage_meta or StorageMeta()
        storage.load_id = self.load_id
        return self._metadata

    def check_sizes(self) -> None:
        """Raises CheckpointError where a tensor, an archive in a slice of a file, unfolds to more than it has."""
        for index, stored in (self._metadata.storage_data or {}).items():
            path = Path(self.path) / stored.relative_path
            try:
                with path.open("rb") as file:
                    unfolded = unfolded_bytes(self._slice_file(file, stored))
            except (OSError, RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise CheckpointError(f"{path}: {index.fqn} can't be read: {reason}") from error
            if unfolded > stored.length:
                raise CheckpointError(
                    f"{path}: {index.fqn} unfolds to {unfolded} bytes and has {stored.length}: refused"
                )


def _read(path: Path) -> Metadata:
    try:
        with path.open("rb") as file:
            metadata = _Unpickler(file).load()
        _check(metadata)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}; remove the folder to start anew") from error
    except Exception as error:  # a pickle that is damaged or made up raises anything
        raise CheckpointError(
            f"{path}: refused ({type(error).__name__}: {error}); resume only from a folder that a training of yours "
            "wrote, or remove it to start anew"
        ) from error
    return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        kind = getattr(torch, name, None) if module == "torch" else None
        if isinstance(kind, torch.dtype) or kind is torch.Size:
            return kind
        if (module, name) == ("builtins", "getattr"):
            return _memory_format
        if name not in _NAMES.get(module, ()):
            raise pickle.UnpicklingError(f"it holds {module}.{name}, and loading it could run code")
        return super().find_class(module, name)


def _memory_format(kind: Any, name: str) -> Any:
    """What Python up to 3.11.3 pickles an enumeration's member as, `getattr(kind, name)`: of the one kind there is."""
    if kind is not _MEM_FORMAT_ENCODING or name not in _MEM_FORMAT_ENCODING.__members__:
        raise pickle.UnpicklingError(f"it calls getattr for {name!r} of {kind!r}, and loading it could run code")
    return _MEM_FORMAT_ENCODING[name]


def _check(metadata: Any) -> None:
    """Raises ValueError for what is no tensor, for it would be unpickled, and for files elsewhere."""
    if not isinstance(metadata, Metadata):
        raise ValueError(f"it holds a {type(metadata).__name__}")
    for name, described in metadata.state_dict_metadata.items():
        if not isinstance(described, TensorStorageMetadata):
            raise ValueError(f"{name} is no tensor")
    for index, stored in (metadata.storage_data or {}).items():
        place = stored.relative_path
        if not isinstance(place, str) or place != PurePath(place).name or "\\" in place or "\0" in place:
            raise ValueError(f"{index.fqn} lies at {place!r}, which is no file of the folder")
        if stored.transform_descriptors:
            raise ValueError(f"{index.fqn} is stored as {stored.transform_descriptors!r}, which no training here does")
