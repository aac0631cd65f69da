"""Commands of others: neither they, nor what they start, nor their folders outlive the benchmark, however it ends."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PREFIX = "editar-external-"  # of the folders
YOUNG = 60  # seconds: whoever made such a folder may not hold it yet
# Kills its process group once the benchmark, which holds the other end of its input, is gone.
_GUARD = "import os, sys; sys.stdin.read(); os.killpg(0, 9)"


def run(command: Sequence[str], folder: Path, log: Path, seconds: float) -> int:
    """The exit status of a command, started in `folder`, without a shell, with its output in `log`.

    When it has ended, or this process does in any way, all that it started is killed, unless it left the process group.
    Raises OSError where it can't be started, TimeoutExpired after `seconds`.
    """
    with log.open("wb") as output, _process_group() as group:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=group
        )
        try:
            return process.wait(seconds)
        finally:
            os.killpg(group, signal.SIGKILL)
            process.wait()


@contextmanager
def _process_group() -> Iterator[int]:
    """The number of a new one."""
    guard = subprocess.Popen([sys.executable, "-S", "-c", _GUARD], stdin=subprocess.PIPE, process_group=0)
    try:
        yield guard.pid
    finally:
        guard.kill()
        guard.communicate()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for one command. Those of benchmarks that were killed are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        _remove_stale(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # until this process ends: a folder without a lock is stale
            yield Path(name)
        finally:
            os.close(descriptor)


def _remove_stale(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # another user's, or gone
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(descriptor).st_mtime > YOUNG:
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:  # its benchmark runs
        pass
    finally:
        os.close(descriptor)
