"""Images of the real networks do not depend on how the work is split up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
METHODS = ("editar", "instruct-pix2pix", "prompt-to-prompt")
COUNT = 5  # not a multiple of the images that a diffusion network takes at once
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def images(out: Path, *flags: str, threads: int = 2, processes: int = 1) -> dict[str, bytes]:
    command = [sys.executable] if processes == 1 else [*TORCHRUN, str(processes)]
    command += ["-m", "benchmarks.piebench", "--methods", *METHODS, "--limit", str(COUNT), "--out", str(out), *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, cwd=out.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("images/*.png"))}
    assert len(found) == COUNT * len(METHODS)
    return found


@pytest.mark.slow
def test_images_depend_on_neither_threads_nor_batches_nor_processes(tmp_path: Path) -> None:
    alone = images(tmp_path / "alone")
    assert images(tmp_path / "one-thread", threads=1) == alone
    assert images(tmp_path / "batches-of-3", "--batch-size", "3") == alone
    assert images(tmp_path / "two", "--batch-size", "2", threads=1, processes=2) == alone
    assert images(tmp_path / "four", "--batch-size", "1", threads=1, processes=4) == alone
