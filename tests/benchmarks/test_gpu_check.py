"""The check of a GPU, tried on a CPU: its parts, and that one which goes wrong leaves the others alone."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tools.gpu_check import PARTS, Part, Settings, check, summary

Rows = Iterator[dict[str, Any]]


def good(device: str, tiny: bool) -> Rows:
    yield {"result": device, "right": True}


def fails(device: str, tiny: bool) -> Rows:
    yield {"result": "before"}
    raise RuntimeError("CUDA error: an illegal memory access")


def hangs(device: str, tiny: bool) -> Rows:
    yield {"result": "before"}
    time.sleep(600)


def dies(device: str, tiny: bool) -> Rows:
    yield {"result": "before"}
    os._exit(3)


@pytest.mark.slow
def test_what_goes_wrong_in_a_part_leaves_the_others_alone(tmp_path: Path) -> None:
    parts = {f.__name__: Part(rows=f, seconds=60) for f in (fails, dies, good)}
    parts = {"hangs": Part(rows=hangs, seconds=25), **parts}
    assert not check(parts, Settings(out=tmp_path, device="cpu"))
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["part"] for row in rows] == ["hangs", "hangs", "fails", "fails", "dies", "dies", "good"]
    assert "not done after 25 s" in rows[1]["error"]
    assert "illegal memory access" in rows[3]["error"]
    assert "ended with 3" in rows[5]["error"]
    assert rows[6] == {"part": "good", "result": "cpu", "right": True}
    assert (tmp_path / "summary.md").read_text() == summary(rows, "cpu")


def test_all_parts_together_take_at_most_eight_minutes() -> None:
    assert sum(part.seconds for part in PARTS.values()) <= 480


@pytest.mark.parametrize("name", [name for name in PARTS if name != "scoring"])  # its networks have one size, 2 GB
def test_parts(name: str) -> None:
    rows = list(PARTS[name].rows("cpu", True))
    assert len(rows) >= 1
    assert all(row.get("right", True) for row in rows)
    assert all(row.get("same as the CPU's", 1.0) == 1.0 for row in rows)
