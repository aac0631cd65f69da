"""Run directories by the documented schema, with scores that a test chooses or that are drawn at random."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from baselines import METHODS
from baselines.method import MethodContext

SCORES = ("structure_distance", "psnr", "lpips", "mse", "ssim", "clip_whole", "clip_edited")
NETWORKS = {"structure": "dino-vitb8", "perceptual": "lpips-squeeze", "clip": "clip-vit-large-patch14"}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in changes.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def backbones(*, official: bool) -> dict[str, dict[str, object]]:
    return {
        part: {"name": name if official else "miniature-perception", "official": official, "digest": "d" * 64}
        for part, name in NETWORKS.items()
    }


def facts_of_method(name: str, known: Mapping[str, Callable[[MethodContext], Any]]) -> dict[str, Any]:
    """Card and position of a method of the registry; nothing of others."""
    if name not in known:
        return {}
    method = known[name](MethodContext(suite="paper", weights=None, device="cpu", image_side=512, task="canny"))
    return {"card": asdict(method.card), "position": list(known).index(name)}


def base_manifest(method: str, count: int, *, failed: int = 0) -> dict[str, Any]:
    """Of a run of the miniature's PIE-Bench."""
    return {
        "schema_version": 1,
        "suite": "miniature",
        "benchmark": "piebench",
        "method": method,
        **facts_of_method(method, METHODS),
        "protocol": "pie-bench/v1",
        "dataset": {"name": "piebench", "digest": "abcdef0123456789" * 4, "records": count},
        "method_settings": {},
        "scoring": {"precision": "float32", "backbones": backbones(official=False)},
        "seed": 0,
        "counts": {"expected": count, "done": count - failed, "failed": failed, "missing": 0},
    }


def write_manifest(run: Path, base: dict[str, Any], changes: dict[str, Any] | None) -> None:
    (run / "manifest.json").write_text(json.dumps(merged(base, changes or {})), encoding="utf-8")


def samples_frame(count: int, seed: int) -> pd.DataFrame:
    """Two samples of a source image; edit types "0" and "1" in turn."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.uniform(0.1, 0.9, (count, len(SCORES))), columns=list(SCORES))
    numbers = range(count)
    return frame.assign(
        sample_id=[f"{i:012d}" for i in numbers],
        source_id=[f"source{i // 2}" for i in numbers],
        edit_type=[str(i % 2) for i in numbers],
        edit_type_name=[("random", "change object")[i % 2] for i in numbers],
        status="done",
        error=pd.Series([None] * count, dtype="str"),
        seconds=0.1,
        image_sha256="e" * 64,
        undefined=pd.Series([None] * count, dtype="str"),
    )


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """write_run(method, count=..., seed=..., manifest={changes}, samples=frame, folder=name) -> the run directory."""

    def write(
        method: str,
        *,
        count: int = 12,
        seed: int = 0,
        manifest: dict[str, Any] | None = None,
        samples: pd.DataFrame | None = None,
        folder: str | None = None,
    ) -> Path:
        path = tmp_path / "runs" / (folder or method)
        (path / "images").mkdir(parents=True)
        frame = samples_frame(count, seed) if samples is None else samples
        frame.sort_values("sample_id").to_parquet(path / "samples.parquet")
        write_manifest(path, base_manifest(method, count), manifest)
        return path

    return write


@pytest.fixture
def paper_manifest() -> dict[str, Any]:
    """Changes that make a run one of the paper's suite, comparable with the published rows."""
    return {"suite": "paper", "scoring": {"backbones": backbones(official=True)}}


@pytest.fixture
def frame() -> Callable[[int, int], pd.DataFrame]:
    return samples_frame
