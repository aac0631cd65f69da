"""The logs of a run that is going on, kept so that a process can be killed at any moment.

Each process appends to its own `samples-<rank>.jsonl`, one line for each batch: a line is there whole or it does not
count, so a killed process loses its current batch and nothing else. When every sample is done or has failed, the lines
become samples.parquet. A later start reads both, whatever its number of processes. Each line carries its SHA-256: one
that was changed is refused.

Lines are ordered by their turn: every process that opens a log takes the next number. Clocks order nothing. Its first
line names the process, so that another one can be told whom to wait for.
"""

import fcntl
import io
import json
import os
import re
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.runs import memory
from benchmarks.runs.schema import RunError, Sample, Session, parse
from editar.io.atomic import WriteError, lock, plain_file
from editar.io.digests import sealed, unsealed

_LOG = re.compile(r"samples-[0-9]+\.jsonl")


class InUse(RunError):
    """Another process has the log."""


class SampleLog:
    """The samples-<rank>.jsonl of this process, locked as long as it is open."""

    def __init__(self, folder: Path, rank: int, source: str = "") -> None:
        """source: of this process's code, see Manifest."""
        self.path = log_path(folder, rank)
        self.rank = rank
        with lock(folder):  # a merge holds every log for a moment, which is no reason to give up
            self._file = _open_locked(self.path)
            _cut_torn_line(self._file)
            self._turn = 1 + max((line["turn"] for path in log_paths(folder) for line in _read_lines(path)), default=0)
            self._write({"turn": self._turn, "process": {"pid": os.getpid(), "host": socket.gethostname()}})
        self._session = Session(
            id=uuid4().hex, rank=rank, started=utc_now(), seconds=0.0, peak_memory_bytes=0, source=source
        )
        self._making = False

    def begin_making(self, load_seconds: float, before_bytes: int) -> None:
        """The method is loaded; the batches until `end_making` are its images."""
        self._session = replace(
            self._session, load_seconds=load_seconds, before_bytes=before_bytes, memory=memory.kind()
        )
        self._making = True

    def end_making(self) -> None:
        self._making = False

    def append(self, samples: Sequence[Sample], seconds: float) -> None:
        """Writes one batch, which took `seconds`; when this returns, it is on the disk."""
        known, peak = self._session, memory.peak_bytes()
        self._session = replace(
            known,
            seconds=known.seconds + seconds,
            peak_memory_bytes=max(known.peak_memory_bytes, peak),
            making_peak_bytes=max(known.making_peak_bytes, peak) if self._making else known.making_peak_bytes,
        )
        entries = [asdict(sample) for sample in samples]
        self._write({"turn": self._turn, "session": asdict(self._session), "samples": entries})

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            self._file.write(sealed(json.dumps(line, allow_nan=False).encode()) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.raw.close()  # so that closing tries no second time: half a line does not count
            raise WriteError(self.path, error) from error

    def close(self) -> None:
        self._file.close()


def log_path(folder: Path, rank: int) -> Path:
    return folder / f"samples-{rank}.jsonl"


def rank_of(path: Path) -> int:
    """Of a log."""
    return int(path.stem.removeprefix("samples-"))


def log_paths(folder: Path) -> list[Path]:
    """Of no other files that somebody called alike."""
    return sorted(path for path in folder.glob("samples-*.jsonl") if _LOG.fullmatch(path.name))


def read_logs(
    folder: Path, settled: Collection[str] = (), merged: Collection[str] = ()
) -> tuple[dict[str, Sample], dict[str, Session]]:
    """The last word of all logs on each sample, and the sessions. Raises RunError for a damaged line.

    settled, merged: the samples of samples.parquet, and the sessions that went into it. What these sessions say of
    those samples is left out: a merge that was cut short may have removed some logs, and with them later words.
    """
    lines = [line for path in log_paths(folder) for line in _read_lines(path) if "samples" in line]
    lines.sort(key=lambda line: line["turn"])  # the logs of other ranks may be older or younger
    samples: dict[str, Sample] = {}
    sessions: dict[str, Session] = {}
    for line in lines:
        session = line["session"]
        sessions[session.id] = session
        samples |= {
            sample.sample_id: sample
            for sample in line["samples"]
            if session.id not in merged or sample.sample_id not in settled
        }
    return samples, sessions


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Each line's turn, and its process or its session and samples."""
    with open(path, "rb", opener=plain_file) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return  # cut off by a kill, or still being written
            try:
                if (text := unsealed(line.removesuffix(b"\n"))) is None:
                    raise ValueError("it doesn't begin with its SHA-256, as lines do since logs have them")
                content = json.loads(text)
                content["turn"] = int(content["turn"])
                if "samples" in content:
                    content["session"] = parse(Session, content["session"])
                    content["samples"] = [parse(Sample, entry) for entry in content["samples"]]
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                raise RunError(
                    f"{path}: line {number} is damaged ({error}); delete that line to have its batch done again, or "
                    "start with --fresh"
                ) from error
            yield content


@contextmanager
def all_logs_locked(folder: Path) -> Iterator[list[Path]]:
    """Holds all logs there are, so that nobody appends to them. Raises InUse when a live process has one of them."""
    files: list[io.BufferedRandom] = []
    try:
        paths = log_paths(folder)
        files += map(_open_locked, paths)
        yield paths
    finally:
        for file in files:
            file.close()


def _open_locked(path: Path) -> io.BufferedRandom:
    """The log, with a lock that ends with its process, however that ends."""
    while True:
        file = open(path, "ab+", opener=plain_file)  # noqa: SIM115  closed by the caller
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise InUse(
                f"{path} is in use by {_last_process(path)}; wait for it or stop it, or give each process its own "
                "--shard i/n"
            ) from error
        # Between opening and locking another process may have merged the log and removed it.
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            return file
        file.close()


def _last_process(path: Path) -> str:
    found = [line["process"] for line in _read_lines(path) if "process" in line]
    return f"process {found[-1]['pid']} on {found[-1]['host']}" if found else "another process"


def _cut_torn_line(file: io.BufferedRandom) -> None:
    file.seek(0)
    whole = 0
    for line in file:
        if line.endswith(b"\n"):
            whole += len(line)
    file.truncate(whole)
    file.seek(0, os.SEEK_END)


def utc_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
