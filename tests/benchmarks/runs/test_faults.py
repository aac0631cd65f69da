"""Faults of the machine, injected into runs: after each the next start ends as an uninterrupted run, see faults.py."""

import os
import random
import resource
import signal
import socket
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.cli import EXIT_STATUS
from tests.benchmarks.faults import METHODS, FilesUpTo, Interruption, Laboratory, calls
from tests.benchmarks.faulty_methods import FailsOn, FillsDisk, Greedy, Waiting, no_space_for
from tests.limits import memory_up_to

RANDOM_KILLS = 50
NOBODY = 65534
GO_ON = "start the same command again"


@pytest.mark.slow
def test_sigkill_before_file_operations(laboratory: Laboratory) -> None:
    """So also between writing a file and renaming it, while the manifest is written, and while logs are merged."""
    for at in range(1, laboratory.measure(files_only=True) + 1):
        out = laboratory.folder()
        assert laboratory.start(out, Interruption(at=at, files_only=True)) == -signal.SIGKILL
        laboratory.finish(out, "SIGKILL")


@pytest.mark.parametrize("least", [5, pytest.param(RANDOM_KILLS, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments(laboratory: Laboratory, least: int) -> None:
    """Of runs that are killed several times, and share the work differently each time."""
    moments, dice = laboratory.measure(files_only=False), random.Random(7)
    kills = 0
    while kills < least:
        out, before = laboratory.folder(), kills
        for _ in range(dice.randrange(1, 6)):
            shard = dice.choice(("0/1", "0/2", "1/2", "2/3"))
            code = laboratory.start(out, Interruption(at=dice.randrange(1, moments)), shard=shard)
            assert code in (-signal.SIGKILL, 0)
            kills += code != 0
        laboratory.finish(out, "SIGKILL", kills - before)


@pytest.mark.slow
def test_sigkill_while_logs_with_different_words_are_merged(laboratory: Laboratory) -> None:
    """A sample failed in the log of a process that is gone, and another process did it since: the later word counts,
    whichever log is removed first."""

    def half_done() -> Path:
        out = laboratory.folder()
        assert laboratory.start(out, method=partial(FailsOn, bad=laboratory.sample_ids[3]), shard="1/2") == 0
        return out

    last = laboratory.measure(files_only=True, out=half_done())
    for at in range(last - 11, last + 1):  # the merge of the second method, up to the removal of its second log
        out = half_done()
        assert laboratory.start(out, Interruption(at=at, files_only=True)) == -signal.SIGKILL
        laboratory.finish(out, "SIGKILL")


@pytest.mark.slow
def test_sigterm_ends_in_order(laboratory: Laboratory) -> None:
    for at in range(1, laboratory.measure(files_only=True), 7):
        out = laboratory.folder()
        assert laboratory.start(out, Interruption(at=at, files_only=True, signal=signal.SIGTERM)) == EXIT_STATUS
        assert f"stopped by SIGTERM; what was recorded is kept: {GO_ON}" in (out / "messages").read_text()
        assert not list(out.rglob("*.part"))
        laboratory.finish(out, "SIGTERM")


@pytest.mark.parametrize(
    ("temporary", "name"),
    [
        ("images/.000000000001.png.0.part", "images/000000000001.png"),
        (".samples.parquet.locked.part", "samples.parquet"),
        (".manifest.json.locked.part", "manifest.json"),
    ],
)
def test_no_space_is_left(laboratory: Laboratory, temporary: str, name: str) -> None:
    out = laboratory.folder()
    assert laboratory.start(out, method=partial(FillsDisk, name=temporary)) == 2
    told = (out / "messages").read_text()
    assert f"noise/{name} can't be written (No space left on device)" in told and GO_ON in told
    assert not list((out / "noise").rglob("*.part"))
    laboratory.finish(out, "disk full")


def test_no_space_is_left_for_a_new_run(laboratory: Laboratory) -> None:
    out = laboratory.folder()
    (out / "again").mkdir()
    assert laboratory.start(out, partial(no_space_for, out / "again" / ".manifest.json.locked.part")) == 2
    assert "manifest.json can't be written (No space left on device)" in (out / "messages").read_text()
    laboratory.finish(out, "disk full")


def as_another_user() -> None:
    """One who may read what is there and write nothing. root may write everywhere."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)


def test_a_folder_that_is_read_only(laboratory: Laboratory) -> None:
    out = laboratory.folder()
    assert laboratory.start(out, shard="0/2") == 0
    parents = [path for path in out.parents if path.owner() == out.owner() and len(path.parts) > 2]
    modes = {path: path.stat().st_mode for path in (*parents, *out.rglob("*"), out)}
    try:
        for path in modes:
            path.chmod(0o555 if path.is_dir() else 0o444)
        assert laboratory.start(out, as_another_user) == 2
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    told = (out / "messages").read_text()
    assert "Permission denied" in told and "noise/" in told and told.count("\n") == 1
    laboratory.finish(out, "read-only folder")


@pytest.mark.parametrize("more", [2**20, *range(8 << 20, 28 << 20, 4 << 20), 2**26])
def test_memory_is_scarce(laboratory: Laboratory, more: int) -> None:
    """Wherever it runs out, what was recorded is kept, and the next start goes on."""
    out = laboratory.folder()
    assert laboratory.start(out, partial(memory_up_to, more)) in (0, 2)
    assert (out / "messages").read_text().count("error: ") <= 1
    laboratory.finish(out, "scarce memory")


SIZES = (700, 2000, 3000, *range(3200, 4200, 125))  # bytes: a manifest, images, lines of a log


@pytest.mark.slow
@pytest.mark.parametrize("deadly", [False, True], ids=["error", "SIGXFSZ"])
def test_writes_are_cut_off_anywhere(laboratory: Laboratory, deadly: bool) -> None:
    """Half of a manifest, image, line of samples or table is written; the process gets an error, or dies there."""
    refused = set()
    for size in SIZES:
        out = laboratory.folder()
        code = laboratory.start(out, FilesUpTo(size=size, deadly=deadly))
        told = (out / "messages").read_text()
        if code == 2:
            assert "(File too large)" in told and GO_ON in told
            refused.add(Path(told.rpartition(" can't be written")[0]).suffix)
        assert code in ((-signal.SIGXFSZ, 0) if deadly else (2, 0))
        laboratory.finish(out, "write cut off", int(code != 0))
    assert deadly or refused >= {".json", ".png", ".jsonl"}


@pytest.mark.parametrize("ending", ["killed", "finished"])
def test_a_second_process_is_refused_with_the_name_of_the_first(laboratory: Laboratory, ending: str) -> None:
    out = laboratory.folder()
    first = laboratory.process(out, method=Waiting)
    while not calls(out):
        assert first.is_alive()
        time.sleep(0.01)
    for flags in ((), ("--fresh",)):
        assert laboratory.start(out, flags=flags) == 2
        told = (out / "messages").read_text()
        assert f"samples-0.jsonl is in use by process {first.pid} on {socket.gethostname()}; wait for it" in told
    assert calls(out) == [f"noise edit {sample_id}" for sample_id in laboratory.sample_ids[:2]]
    if ending == "killed":  # and its lock is gone with it
        first.kill()
        assert laboratory.wait(first) == -signal.SIGKILL
    else:
        (out / "gate").touch()
        assert laboratory.wait(first) == 0
    laboratory.finish(out, "second process", 2)


@pytest.mark.slow
def test_processes_that_start_at_once(laboratory: Laboratory) -> None:
    for _ in range(4):
        out = laboratory.folder()
        codes = sorted(map(laboratory.wait, [laboratory.process(out) for _ in range(3)]))
        assert codes[0] == 0 and set(codes) <= {0, 2}
        counts = [calls(out).count(call) for call in set(calls(out))]
        assert set(counts) == {1}, "something was done twice"
        laboratory.finish(out, "second process", 2)


@dataclass(frozen=True)
class Clock:
    """From now on the wall clock starts at `start` and jumps to and fro by up to a day at every look."""

    start: float

    def __call__(self) -> None:
        dice, strange = random.Random(3), self.start

        def now() -> float:
            nonlocal strange
            strange += dice.uniform(-86400, 86400)
            return strange

        gmtime = time.gmtime
        time.time, time.gmtime = now, lambda seconds=None: gmtime(now() if seconds is None else seconds)


@pytest.mark.slow
def test_clock_jumps(laboratory: Laboratory) -> None:
    """A later word on a sample counts although the clock says that it is years older."""
    bad = laboratory.sample_ids[3]
    for later in ("0/1", "0/2", "1/2"):
        out = laboratory.folder()
        assert laboratory.start(out, Clock(2e9), partial(FailsOn, bad=bad), "1/2") == 0
        assert laboratory.start(out, Clock(1e9), shard=later) == 0
        laboratory.finish(out, "clock jump", 2)


@dataclass(frozen=True)
class LittleMemory:
    """The process gets `megabytes` more than it has."""

    megabytes: int

    def __call__(self) -> None:
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + self.megabytes * 2**20, resource.RLIM_INFINITY))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_memory_runs_out(laboratory: Laboratory, library: str) -> None:
    """Two images at a time are too many, so it goes on with one; one of the samples can't be made at all."""
    sample_ids, last = laboratory.sample_ids, laboratory.sample_ids[-1]
    greedy = partial(Greedy, megabytes=300, library=library, glutton=last)
    out = laboratory.folder()
    assert laboratory.start(out, LittleMemory(500), greedy) == 0
    asked = [line.rpartition(" ")[2] for line in calls(out) if line.startswith("noise edit")]
    assert asked == [*sample_ids[:2], *sample_ids]
    told = (out / "messages").read_text()
    assert told.count("out of memory with 2 images at a time, going on with 1") == len(METHODS)
    *done, failed = pq.read_table(out / "noise" / "samples.parquet").to_pylist()
    assert [row["status"] for row in done] == ["done"] * len(done) and failed["status"] == "failed"
    assert ("MemoryError" if library == "numpy" else "can't allocate memory") in failed["error"]
    laboratory.finish(out, "out of memory", 2 * len(METHODS))
