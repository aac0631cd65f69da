"""Files and folders that are there whole or not at all, whenever the process that writes them is killed.

What is being written lies beside its place under a temporary name, `.<name>.<writer>.part`, and is then renamed.
"""

import errno
import fcntl
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path

_LONGEST = 300  # bytes of a lock's file that a message shows


class WriteError(OSError):
    """A file that can't be written; the message names it, says why, and what to do."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"{path} can't be written ({error.strerror or error}); what was recorded is kept: make room, or mend what "
            "is wrong, and start the same command again to go on"
        )


@contextmanager
def replacing(path: Path, *, durable: bool = False, writer: str | None = None) -> Iterator[BufferedRandom]:
    """A file to write into, which takes the place of `path` when the block ends; its `name` is that of the temporary.

    durable: `path` is the old file or the new one even if the machine dies. writer: a name for the only process that
    may write this file now, such as one that holds a lock; what a killed process of the same name left is then
    replaced. By default this very process. Raises WriteError. An error in the block leaves the old `path` and no
    temporary file.
    """
    temporary = _temporary(path, writer)
    try:
        with _created(temporary) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WriteError(path, error) from error
        raise


def write_bytes(path: Path, data: bytes, *, durable: bool = False, writer: str | None = None) -> Path:
    """Replaces the file, see `replacing`; returns `path`."""
    with replacing(path, durable=durable, writer=writer) as file:
        file.write(data)
    return path


def write_text(path: Path, text: str, *, durable: bool = False, writer: str | None = None) -> Path:
    """Replaces the file by `text` in UTF-8, lines ending as in `text`; returns `path`. See `replacing`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text(Path(folder) / "notes.txt", "all of it, or none").name
    'notes.txt'
    """
    return write_bytes(path, text.encode("utf-8"), durable=durable, writer=writer)


def append_text(path: Path, text: str) -> None:
    """Adds lines to a file, made where there is none. Raises WriteError."""
    try:
        with open(path, "ab", opener=plain_file) as file:
            file.write(text.encode())
    except OSError as error:
        raise WriteError(path, error) from error


@contextmanager
def replacing_folder(path: Path, *, writer: str | None = None) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `path` and all that is in it when the block ends.

    writer: see `replacing`. An error in the block leaves the old `path`. A process that is killed between the removal
    of the old folder and the renaming leaves neither.
    """
    temporary = _temporary(path, writer)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_torn(folder: Path, writer: str = "*") -> None:
    """Removes the temporary files that killed processes called `writer` left in a folder. None of them may run now."""
    for path in folder.glob(f".*.{writer}.part"):
        path.unlink()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds `folder` by its file `lock`, waiting for other processes; a process that ends in any way lets go of it."""
    with open(folder / "lock", "ab+", opener=plain_file) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def lock_or_refuse(folder: Path) -> Iterator[None]:
    """As `lock`, but where another process has the folder: a ValueError that names it. Its children do not hold it."""
    with open(folder / "lock", "ab+", opener=plain_file) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process; flock would be inherited
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            holder = file.read(_LONGEST).decode("utf-8", "replace") or "another process"
            raise ValueError(f"{folder} is in use by {holder}; wait for it, stop it, or take another folder") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        yield


def read_plain(path: Path) -> bytes:
    """A file's bytes; see `plain_file`."""
    with open(path, "rb", opener=plain_file) as file:
        return file.read()


def plain_file(path: str, flags: int) -> int:
    """An opener (see `open`) of files alone: of no pipe, which would wait for somebody, and to write of no link."""
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    descriptor = os.open(path, flags | os.O_NONBLOCK | (os.O_NOFOLLOW if writes else 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", path)
    return descriptor


def _temporary(path: Path, writer: str | None) -> Path:
    return path.with_name(f".{path.name}.{writer or f'{socket.gethostname()}-{os.getpid()}'}.part")


def _created(temporary: Path) -> BufferedRandom:
    """The new file: neither opened where there is one, nor behind a link."""
    try:
        return temporary.open("x+b")
    except FileExistsError:  # left by a process that was killed
        temporary.unlink()
        return temporary.open("x+b")
