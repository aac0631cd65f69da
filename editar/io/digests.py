"""SHA-256 digests, in 64 hexadecimal digits, and files that carry their own: one that was damaged is known by it."""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedRandom
from pathlib import Path
from typing import Any

from editar.io.atomic import replacing, write_bytes, write_text

SUMS = "SHA256SUMS"  # of a folder's files, for `sha256sum --check` too
_SEALED = re.compile(rb'\{"sha256": "([0-9a-f]{64})",')


class DamagedError(ValueError):
    """A file that isn't what was written."""


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


def sealed(content: bytes) -> bytes:
    """A JSON object with the digest of its text as first member, see `unsealed`.

    >>> sealed(b'{"a": 1}')[:13], sealed(b'{"a": 1}')[77:]
    (b'{"sha256": "f', b',"a": 1}')
    """
    assert content.startswith(b"{") and content[1:].strip() != b"}"
    return b'{"sha256": "' + bytes_digest(content).encode() + b'",' + content[1:]


def unsealed(content: bytes) -> bytes | None:
    """What was sealed; None for text that doesn't begin as such. Raises DamagedError where the text has changed."""
    if not (found := _SEALED.match(content)):
        return None
    text = b"{" + content[found.end() :]
    if bytes_digest(text) != found[1].decode():
        raise DamagedError("it isn't what was written, its SHA-256 differs")
    return text


@contextmanager
def replacing_checked(path: Path, *, writer: str | None = None) -> Iterator[BufferedRandom]:
    """As `editar.io.atomic.replacing`, for a file that is asked after by `is_intact`: its digest lies beside it."""
    beside = _beside(path)
    with replacing(path, writer=writer) as file:
        yield file
        file.flush()
        # With that of the file before it, which is there until the renaming: whoever is killed leaves either intact.
        write_bytes(beside, "\n".join([_hash(Path(file.name)), *_digests(beside)[:1], ""]).encode(), writer=writer)


def is_intact(path: Path) -> bool:
    """Whether a file is there as `replacing_checked` wrote it. Of files without a digest, of before there were any,
    nothing is known: they are taken as they are."""
    return path.is_file() and (not (beside := _beside(path)).is_file() or _hash(path) in _digests(beside))


def is_reusable(path: Path) -> bool:
    """As `is_intact`, for a file that is made again where it isn't: says so where one is there."""
    intact = is_intact(path)
    if path.is_file() and not intact:
        print(f"note: {path} was damaged, and is made again", file=sys.stderr)
    return intact


def write_sums(folder: Path) -> None:
    """Writes SHA256SUMS of all files in and below a folder."""
    write_text(folder / SUMS, "".join(f"{_hash(folder / name)}  {name}\n" for name in _files(folder)), writer="sums")


def check_sums(folder: Path) -> None:
    """Raises DamagedError that names the first file that isn't as it was when `write_sums` wrote of it. Of a folder
    without SHA256SUMS, of before there was one, nothing is known."""
    if not (folder / SUMS).is_file():
        return
    try:
        lines = (folder / SUMS).read_bytes().decode("ascii").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"{folder / SUMS} can't be read ({error})") from error
    files = _files(folder)
    for name in sorted({*files, *sums}):
        if name not in files or _hash(folder / name) != sums.get(name):
            raise DamagedError(f"{folder / name} isn't what was written (by {SUMS})")


def _files(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != SUMS)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digests(beside: Path) -> list[str]:
    try:
        return beside.read_bytes().decode("ascii", "replace").split("\n")[:-1]
    except OSError:
        return []


@lru_cache(4096)  # far more than the files of weights, far fewer than the images of a data set
def _digest(path: Path, size: int, modified: int) -> str:
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
