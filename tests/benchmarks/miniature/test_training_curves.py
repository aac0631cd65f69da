"""The comparison of two training curves, and the one that is committed."""

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from benchmarks.miniature.paths import WEIGHTS
from benchmarks.miniature.train.training_curves import compare, read_curve

COMMITTED = Path(__file__).parents[3] / "reports" / "miniature" / "training-curves.json"


def test_the_steps_that_both_curves_have_are_compared(tmp_path):
    before = {step: {"loss": 3.0 - step / 100, "gradient_norm": 1.0} for step in (25, 50, 75)}
    after = {step: {"loss": 3.0 - step / 100 + 0.001, "gradient_norm": 2.0} for step in (25, 50)}
    former, trainer = (pd.DataFrame.from_dict(curve, orient="index").rename_axis("step") for curve in (before, after))
    assert compare(former, trainer, tmp_path) == "2 points up to step 50: the losses differ by 0.001 at most"
    rows = json.loads((tmp_path / "training-curves.json").read_text())
    assert [row["step"] for row in rows] == [25, 50]
    assert rows[1]["loss_before"] == 2.5 and rows[1]["gradient_norm_after"] == 2.0
    assert Image.open(tmp_path / "training-curves.png").width == 800
    with pytest.raises(ValueError):
        compare(former, trainer.rename(index={25: 10, 50: 20}), tmp_path)
    curve = tmp_path / "metrics.jsonl"
    curve.write_text("".join(json.dumps({"step": float(step), **line}) + "\n" for step, line in before.items()))
    assert read_curve(curve)["loss"][50] == 2.5


def test_the_trainer_trains_as_the_loop_behind_the_committed_weights_did():
    rows = json.loads(COMMITTED.read_text())
    committed = read_curve(WEIGHTS / "curves" / "transformer.jsonl")
    assert len(rows) >= 3
    for row in rows:
        assert row["loss_before"] == committed["loss"][row["step"]]
        assert row["loss_after"] == pytest.approx(row["loss_before"], rel=1e-3)
