"""External commands that print without end, leave children behind, or whose benchmark is killed."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import pytest

from baselines.external import External, read_recipe
from baselines.method import NoAnswer
from baselines.processes import PREFIX, YOUNG, temporary_folder
from tests.baselines.test_external import alive, request, write_recipe

HUGE = 3 << 30  # bytes; of a file that has no blocks
CHILD = "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"


def ended(process: int) -> bool:
    for _ in range(100):
        if not alive(process):
            return True
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    return False


def test_texts_of_any_length_are_read_by_their_ends(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "answers = Path(sys.argv[1]) / 'answers'\n"
        f"os.ftruncate(1, {HUGE})\n"
        "os.lseek(1, 0, os.SEEK_END)\n"
        "os.write(1, b'the end of it')\n"
        "with open(answers / 'x.txt', 'wb') as file:\n"
        f"    file.truncate({HUGE})\n"
        "    file.seek(0, os.SEEK_END)\n"
        "    file.write(b'so many words')\n"
    )
    tracemalloc.start()
    try:
        told, silent = External(read_recipe(write_recipe(tmp_path, script))).edit([request("x"), request("y")])
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()
    assert isinstance(told, NoAnswer) and str(told).endswith("so many words")
    assert isinstance(silent, NoAnswer) and str(silent).endswith("the end of it")


def test_what_a_successful_command_leaves_running_is_ended(tmp_path: Path) -> None:
    script = CHILD + "open('child', 'w').write(str(child.pid))\n"
    External(read_recipe(write_recipe(tmp_path, script))).edit([request("x")])
    assert ended(int((tmp_path / "child").read_text()))


def test_a_command_ends_with_a_benchmark_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    script = CHILD + (
        "import os, time\n"
        "open('new', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "os.rename('new', 'processes')\n"
        "time.sleep(60)\n"
    )
    recipe = write_recipe(tmp_path, script)
    benchmark = (
        "import sys\n"
        "from pathlib import Path\n"
        "from baselines.external import External, read_recipe\n"
        "from tests.baselines.test_external import request\n"
        "External(read_recipe(Path(sys.argv[1]))).edit([request('x')])\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    process = subprocess.Popen([sys.executable, "-c", benchmark, str(recipe)], env=environment)
    while not (tmp_path / "processes").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert all([ended(int(each)) for each in (tmp_path / "processes").read_text().split()])

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (left,) = (tmp_path / "temporary").iterdir()
    with temporary_folder():
        assert left.is_dir()  # its benchmark may only just have made it
    os.utime(left, (0, time.time() - YOUNG - 1))
    with temporary_folder() as mine:
        assert list((tmp_path / "temporary").iterdir()) == [mine]


def test_folders_in_use_and_of_others_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "elsewhere")
    used, old = tmp_path / f"{PREFIX}used", time.time() - YOUNG - 1
    used.mkdir()
    descriptor = os.open(used, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    for folder in (used, tmp_path / "elsewhere"):
        os.utime(folder, (old, old))
    with temporary_folder():
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{PREFIX}link", f"{PREFIX}used", "elsewhere"]
    os.close(descriptor)
    with temporary_folder():
        pass
    assert not used.exists()
