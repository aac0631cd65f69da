"""A folder that a reader may use, and a watch over what it does: no file outside is written, none of the secret folder
is opened, no program is started, and no case takes longer than some seconds of the processor."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

SECONDS = 20.0  # of the processor: a machine that is busy with other work fails no case
PROGRAMS = (
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "subprocess.Popen",
)
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate")
OUTSIDE = b"{outside}"  # in a file's content: the secret folder's path

_watched: list["Sandbox"] = []  # an audit hook can't be taken out again
_own = threading.local()


class Hang(BaseException):
    """No Exception: a reader that catches everything must not catch it."""


class Sandbox:
    """root: the reader's folder, emptied for each case. outside: beside it, with a secret.png and a secret.json."""

    def __init__(self, folder: Path, secrets: Mapping[str, bytes]) -> None:
        self.root, self.outside = folder / "root", folder / "outside"
        self.outside.mkdir()
        for name, content in secrets.items():
            (self.outside / name).write_bytes(content)
        self.faults: list[str] = []

    def fill(self, files: Mapping[str, bytes], links: Mapping[str, str]) -> None:
        """files: by their names in the root. links: what they point at, from the root."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.replace(OUTSIDE, os.fsencode(self.outside)))
        for name, target in links.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(os.path.relpath(self.root / target, (self.root / name).parent), self.root / name)

    @contextmanager
    def watch(self) -> Iterator[None]:
        before = signal.signal(signal.SIGPROF, _hang)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        _watched.append(self)
        try:
            yield
        finally:
            _watched.pop()
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)
        assert not self.faults, self.faults

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in PROGRAMS:
            self.faults.append(f"{event} {arguments!r:.300}")
        elif event in CHANGES:
            if arguments[-1] in (-1, None) or not isinstance(arguments[-1], int):  # else below an open folder
                self._wrote(arguments[1] if event in ("os.rename", "os.symlink") else arguments[0])
        elif event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._wrote(arguments[0])
            elif self._resolved(arguments[0]).is_relative_to(self.outside.resolve()):
                self.faults.append(f"opened {arguments[0]!r}")

    def _wrote(self, place: str | bytes | os.PathLike[str]) -> None:
        path = self._resolved(place)
        if not path.is_relative_to(self.root.resolve()) and path.suffix != ".pyc" and "__pycache__" not in path.parts:
            self.faults.append(f"wrote {place!r}")

    @staticmethod
    def _resolved(place: str | bytes | os.PathLike[str]) -> Path:
        return Path(os.path.realpath(os.fsdecode(place)))


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang(f"a case took more than {SECONDS} s of the processor")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched or getattr(_own, "work", False) or not (event == "open" or event in CHANGES or event in PROGRAMS):
        return
    _own.work = True  # what is done here is not the reader's
    try:
        _watched[-1].see(event, arguments)
    except ValueError:  # a NUL in the name: the call fails by itself
        pass
    finally:
        _own.work = False


sys.addaudithook(_audit)
