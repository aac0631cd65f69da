"""Files that are there whole or not at all, and what is said when there is no room for them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class WriteError(OSError):
    """A file that can't be written; the message names it, says why, and what to do."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"{path} can't be written ({error.strerror or error}); what was recorded is kept: make room, or mend what "
            "is wrong, and start the same command again to go on"
        )


@contextmanager
def replacing(path: Path, temporary: Path, *, durable: bool) -> Iterator[IO[bytes]]:
    """The file `temporary` (same folder) to write into; in the end it takes the place of `path`.

    Whenever the process dies, there is the old `path` or the new one. durable: so it is when the machine dies, too.
    Raises WriteError, which like any other way out leaves the old `path` and no `temporary`.
    """
    try:
        with temporary.open("wb") as file:
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
