"""Runs with pictures, and what a data set would show of their samples, for galleries and figures."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from reports.sheets.sheet import SampleView
from tests.reports.conftest import base_manifest, samples_frame, write_manifest

HOSTILE = 'make it </script><script>pwned=1</script><b onclick="pwned=2">bold</b> & <!-- &amp; \u2028 {{ 7*7 }} 🎈'

TEXTS = ("sample_id", "status", "error", "undefined", "image_sha256")


def picture(seed: int, side: int = 32) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.NEAREST)


def write_run(
    folder: Path,
    method: str,
    *,
    count: int = 12,
    seed: int = 0,
    side: int = 32,
    pictures: bool = True,
    changes: dict[int, dict[str, Any]] | None = None,
    frame: pd.DataFrame | None = None,
    manifest: dict[str, Any] | None = None,
) -> Path:
    """A run directory. changes: of the columns of some samples. frame: instead of PIE-Bench scores at random."""
    path = folder / method
    (path / "images").mkdir(parents=True)
    samples = samples_frame(count, seed) if frame is None else frame
    samples = samples.assign(image_sha256=None).astype(dict.fromkeys(TEXTS, object))
    if pictures:
        for row, sample_id in enumerate(samples["sample_id"]):
            buffer = io.BytesIO()
            picture(1000 * seed + row, side).save(buffer, format="PNG")
            (path / "images" / f"{sample_id}.png").write_bytes(buffer.getvalue())
            samples.at[row, "image_sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    for row, values in (changes or {}).items():
        for column, value in values.items():
            samples.at[row, column] = value
    samples.to_parquet(path / "samples.parquet")
    failed = count - int((samples["status"] == "done").sum())
    write_manifest(path, base_manifest(method, count, failed=failed), manifest)
    return path


def view_edit(sample_id: str) -> SampleView:
    number = int(sample_id)
    mask = np.zeros((32, 32), bool)
    mask[8:24, 8:24] = True
    return SampleView(
        texts={
            "instruction": HOSTILE if number == 3 else f"instruction {number}",
            "source prompt": f"a red ball number {number}",
            "target prompt": f"a blue ball number {number}",
        },
        pictures={"source": picture(number + 5000)},
        mask=mask,
    )


def view_translation(sample_id: str) -> SampleView:
    return SampleView(
        texts={"caption": f"caption {int(sample_id)}"},
        pictures={"condition": picture(int(sample_id) + 6000), "real image": picture(int(sample_id) + 7000)},
    )


def depth_frame(count: int) -> pd.DataFrame:
    numbers = range(count)
    return pd.DataFrame(
        {
            "sample_id": [f"{number:05d}" for number in numbers],
            "source_id": [f"source{number}" for number in numbers],
            "draw": "0",
            "status": "done",
            "error": pd.Series([None] * count, dtype="str"),
            "seconds": 0.1,
            "image_sha256": pd.Series([None] * count, dtype="str"),
            "depth_rmse": [float(7 * number % 5) for number in numbers],
            "undefined": pd.Series([None] * count, dtype="str"),
        }
    )


DEPTH: dict[str, Any] = {
    "benchmark": "translation-depth",
    "protocol": "translation/aligned/v1",
    "scoring": {"backbones": {"depth": {"name": "miniature-perception", "official": False, "digest": "d" * 64}}},
}
