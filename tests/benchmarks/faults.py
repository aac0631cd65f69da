"""Faults for a run in a process of its own, and the accounts of what became of the samples.

A run is two methods on a few tiny images. Its processes are forked from a server that has imported everything, so that
one takes a few hundredths of a second. After a fault the run is started again, and then everything has to be as an
uninterrupted run leaves it.
"""

import gc
import io
import json
import multiprocessing
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pyarrow.parquet as pq

from benchmarks.cli import run_command
from benchmarks.datasets.piebench import PieBench, read_piebench
from benchmarks.runs.arguments import BenchmarkArguments
from benchmarks.runs.execute import Shard
from benchmarks.runs.schema import Manifest, read_manifest
from benchmarks.runs.store import RunDirectory
from tests.benchmarks.killable import COLUMNS, Noise, PixelBenchmark, open_run, run
from tests.benchmarks.tiny import SIDE, write_piebench

COUNT = 5  # enough for a log that outgrows an image
BATCH = 2
METHODS = ("noise", "again")
TIMEOUT = 1800.0  # seconds; a machine may be busy

Fault = Callable[[], object]

_SERVER = multiprocessing.get_context("forkserver")
# With what a process would import by itself: pytest as its main module, the others to write Parquet.
_SERVER.set_forkserver_preload(["tests.benchmarks.faults", "pandas", "pyarrow.dataset", "pytest"])


@dataclass
class Ledger:
    """What all injected faults came to: asserted by each test, and printed at the end of the tests."""

    injected: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    counted_twice: int = 0
    tables_changed: int = 0

    def add(self, other: "Ledger") -> None:
        self.injected += Counter(other.injected)
        self.lost += other.lost
        self.counted_twice += other.counted_twice
        self.tables_changed += other.tables_changed

    def summary(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in self.injected.items())
        return (
            f"{self.injected.total()} faults injected ({kinds}); samples lost: {self.lost}, counted twice: "
            f"{self.counted_twice}, tables changed: {self.tables_changed}"
        )


@dataclass(frozen=True, kw_only=True)
class Interruption:
    """Sends itself `signal` at the `at`-th call or return of a Python function, or only at the file operations.

    The signal comes before the operation is done, so that between writing, forcing to the disk, renaming and removing
    nothing is left out.
    """

    at: int
    signal: int = signal.SIGKILL
    files_only: bool = False
    count_to: Path | None = None

    def __call__(self) -> None:
        count = 0

        def watch(frame: FrameType, event: str, argument: Any) -> None:
            nonlocal count
            if self.files_only and not (event == "c_call" and changes_files(argument)):
                return
            count += 1
            if count == self.at:
                os.kill(os.getpid(), self.signal)
            if self.count_to is not None and event == "c_call" and argument.__name__ == "unlink":
                self.count_to.write_text(str(count))  # removing the log is the last thing that a run does

        sys.setprofile(watch)


def changes_files(function: Any) -> bool:
    """Whether a built-in function writes, locks, renames or removes; without what is in memory or of progress bars."""
    if function.__name__ not in {"write", "flush", "fsync", "truncate", "replace", "unlink", "mkdir", "flock"}:
        return False
    owner = function.__self__  # the module, or the open file
    return isinstance(owner, ModuleType) or (
        isinstance(owner, io.IOBase) and not isinstance(owner, (io.TextIOBase, io.BytesIO))
    )


@dataclass(frozen=True, kw_only=True)
class FilesUpTo:
    """No file may get longer: the write that would do it is cut off there, as on a full disk. deadly: and kills."""

    size: int
    deadly: bool = False

    def __call__(self) -> None:
        if self.deadly:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and gets an error instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def work(
    data: PieBench, manifests: Mapping[str, Manifest], out: Path, method: Callable[[Path], Noise],
    shard: str, fault: Fault | None, flags: Sequence[str],
) -> None:  # fmt: skip
    """The process: what a benchmark's command does, with its messages in the file `messages`."""
    gc.freeze()  # a run collects garbage, and would look through all that was imported
    os.dup2(os.open(out / "messages", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
    sample_ids = [record.sample_id for record in data.records]
    benchmark = PixelBenchmark(data, out / "calls-score")
    methods = {name: partial(method, out / f"calls-{name}") for name in METHODS}
    if fault:
        fault()

    def evaluate(args: BenchmarkArguments) -> None:
        runs = {name: RunDirectory(out / name, manifests[name], COLUMNS, fresh=args.fresh) for name in METHODS}
        run(benchmark, runs, methods, sample_ids, batch_size=BATCH, shard=Shard.parse(shard))
        for each in runs.values():
            each.merge(sample_ids, benchmark.facts)

    sys.exit(run_command(BenchmarkArguments, evaluate, "tests.benchmarks.faults", flags))


def manifest_of(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest


class Laboratory:
    """Starts runs in folders below `root`, and compares what they leave with an uninterrupted run."""

    def __init__(self, root: Path, ledger: Ledger) -> None:
        self.root, self.ledger = root, ledger
        write_piebench(root / "data", COUNT)
        self.data = read_piebench(root / "data", SIDE)
        self.sample_ids = [record.sample_id for record in self.data.records]
        self.manifests: dict[str, Manifest] = {}
        for name in METHODS:
            open_run(root / "manifests" / name, self.data, name)
            self.manifests[name] = manifest_of(root / "manifests" / name)
        self.folders = 0
        out = self.folder()
        assert self.start(out) == 0
        assert sorted(calls(out)) == sorted(
            f"{kind} {name}" for kind in ("noise edit", "again edit", "score score") for name in self.sample_ids
        )
        self.uninterrupted = result(out)

    def folder(self) -> Path:
        """A new one, for a run that has not begun."""
        self.folders += 1
        path = self.root / f"run-{self.folders}"
        path.mkdir()
        return path

    def process(
        self, out: Path, fault: Fault | None = None, method: Callable[[Path], Noise] = Noise,
        shard: str = "0/1", flags: Sequence[str] = (),
    ) -> BaseProcess:  # fmt: skip
        process = _SERVER.Process(target=work, args=(self.data, self.manifests, out, method, shard, fault, flags))
        process.start()
        return process

    def start(self, out: Path, *arguments: Any, **options: Any) -> int:
        """One start to its end, whatever that is; returns the exit code, -9 for a kill."""
        return self.wait(self.process(out, *arguments, **options))

    @staticmethod
    def wait(process: BaseProcess) -> int:
        process.join(TIMEOUT)
        assert process.exitcode is not None, "the process hangs"
        return process.exitcode

    def measure(self, files_only: bool, out: Path | None = None) -> int:
        """How many moments a start has that ends the run in `out`, or a new one; see Interruption."""
        out = out or self.folder()
        assert self.start(out, Interruption(at=0, files_only=files_only, count_to=out / "moments")) == 0
        return int((out / "moments").read_text())

    def finish(self, out: Path, kind: str, faults: int = 1) -> None:
        """Starts the run again, enters the faults into the ledger, and checks that nothing went wrong."""
        known, before = recorded(out), Counter(calls(out))
        assert self.start(out) == 0, (out / "messages").read_text()
        again = known & (Counter(calls(out)) - before)
        after = result(out)
        changed = sum(after.get(name) != value for name, value in self.uninterrupted.items())
        absent = sum(name not in after for name in self.uninterrupted)
        twice = 0
        for name in METHODS:
            manifest = manifest_of(out / name)
            sessions = manifest.sessions
            twice += manifest.counts.done - COUNT + len(sessions) - len({each.id for each in sessions})
            assert manifest.wall_seconds == sum(each.seconds for each in sessions) > 0
            assert all(each.seconds >= 0 for each in sessions)
        self.ledger.injected[kind] += faults
        self.ledger.lost += again.total() + absent
        self.ledger.counted_twice += twice
        self.ledger.tables_changed += changed
        assert not again, f"computed again although it was recorded: {again}"
        assert after == self.uninterrupted
        assert twice == 0


def calls(out: Path) -> list[str]:
    """In order for each method: "METHOD edit ID" for each image made; and "score score ID" for each record scored."""
    files = [(name, out / f"calls-{name}") for name in (*METHODS, "score")]
    return [f"{name} {line}" for name, path in files if path.exists() for line in path.read_text().splitlines()]


def recorded(out: Path) -> Counter[str]:
    """What no start may do again, as `calls` has it: by the files alone, without the code that is tested."""
    made, scored = [], []
    for name in METHODS:
        entries = []
        if (out / name / "samples.parquet").is_file():
            rows = pq.read_table(out / name / "samples.parquet").to_pylist()
            entries += [{**row, "scores": row["status"] == "done"} for row in rows]
        for path in (out / name).glob("samples-*.jsonl"):
            lines = [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            entries += [entry for line in lines for entry in line.get("samples", ())]
        for entry in entries:
            image = out / name / "images" / f"{entry['sample_id']}.png"
            if entry["image_sha256"] and image.is_file() and image.read_bytes().endswith(b"IEND\xaeB`\x82"):
                made.append(f"{name} edit {entry['sample_id']}")
                if entry["scores"]:
                    scored.append((name, entry["sample_id"]))
    methods = Counter(sample_id for _, sample_id in set(scored))  # one call scores a sample's images of all methods
    of_all = [sample_id for sample_id, count in methods.items() if count == len(METHODS)]
    return Counter({*made, *(f"score score {sample_id}" for sample_id in of_all)})


def result(out: Path) -> dict[str, object]:
    """All that a run leaves but its times: which files, the bytes of the images, and the rows of the tables."""
    everything: dict[str, object] = {}
    for path in sorted(path for name in METHODS for path in (out / name).rglob("*") if path.is_file()):
        everything[str(path.relative_to(out))] = path.read_bytes() if path.suffix == ".png" else None
        if path.suffix == ".parquet":
            rows = pq.read_table(path).drop_columns(["seconds"]).to_pylist()
            everything[str(path.relative_to(out))] = rows
    for name in METHODS:
        everything[f"{name} counts"] = manifest_of(out / name).counts
    return everything
