"""SHA-256 digests, in 64 hexadecimal digits."""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """Of a file's bytes. Read once in a process, unless size or time of change differ: rows of a table share files of
    gigabytes."""
    status = path.stat()
    return _digest(path.resolve(), status.st_size, status.st_mtime_ns)


def bytes_digest(data: bytes) -> str:
    """
    >>> bytes_digest(b"abc")[:8]
    'ba7816bf'
    """
    return hashlib.sha256(data).hexdigest()


def json_digest(content: Any) -> str:
    """Of what JSON can say, whatever the order of the names in its objects.

    >>> json_digest({"steps": 50, "guidance": 7.5}) == json_digest({"guidance": 7.5, "steps": 50})
    True
    """
    return bytes_digest(json.dumps(content, sort_keys=True).encode())


def list_digest(digests: Iterable[str]) -> str:
    """Of several digests in their order; sort them where the order of what they are of does not matter.

    >>> list_digest(["a", "b"]) == list_digest(["b", "a"])
    False
    """
    return bytes_digest("\n".join(digests).encode())


@lru_cache(4096)  # far more than the files of weights, far fewer than the images of a data set
def _digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
