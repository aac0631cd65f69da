"""What is in a file, in 64 hexadecimal digits."""

import hashlib
from functools import cache
from pathlib import Path


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes. Read once in a process, unless size or time of change differ: rows of a table
    share files of gigabytes."""
    status = path.stat()
    return _digest(path.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
