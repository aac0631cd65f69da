"""Files and folders that are there whole or not at all, whenever the process that writes them is killed.

What is being written lies beside its place under a temporary name, `.<name>.<writer>.part`, and is then renamed.
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path


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
    with (folder / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _temporary(path: Path, writer: str | None) -> Path:
    return path.with_name(f".{path.name}.{writer or f'{socket.gethostname()}-{os.getpid()}'}.part")


def _created(temporary: Path) -> BufferedRandom:
    """The new file: neither opened where there is one, nor behind a link."""
    try:
        return temporary.open("x+b")
    except FileExistsError:  # left by a process that was killed
        temporary.unlink()
        return temporary.open("x+b")
