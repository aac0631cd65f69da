"""`nox -s piebench` in a new clone makes its tables anew and leaves what is committed as it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_main_command_leaves_a_clone_clean(tmp_path: Path) -> None:
    """On this machine too, whose processor need not be the one behind the committed summaries."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--local", str(ROOT), str(clone)], check=True)
    environment = os.environ | {"PYTHONPATH": str(clone)}
    command = [sys.executable, "-m", "benchmarks.piebench"]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    tables = clone / "reports" / "miniature"
    assert all((tables / f"piebench.{kind}").is_file() for kind in ("md", "tex", "csv", "html"))
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, check=True, capture_output=True, text=True)
    assert status.stdout == "", done.stderr[-2000:]
