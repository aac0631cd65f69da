"""The ablations from the command line to the table: the real sweep on two records, and trainings of three steps."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks import piebench
from benchmarks.ablations import GUIDANCE, REFERENCE_ROWS, Arguments, evaluate, main
from benchmarks.miniature.train.distillation import (
    CLIP,
    DINO,
    NONE,
    PLAN,
    TEACHERS,
    Examples,
    distillation_loss,
    make_examples,
    start,
    train_student,
)
from benchmarks.miniature.train.tokens import Sequences
from benchmarks.runs.schema import read_manifest
from editar.training.loop import TrainConfig, train
from reports.runs import ReportError
from reports.tables import ablations
from reports.tables.two_runs import compare

TINY = replace(
    PLAN,
    layers=(2,),
    training=TrainConfig(steps=3, batch_size=4, learning_rate=1e-3, checkpoint_every=3, log_every=1, bfloat16=False),
    shards=1,
    scenes=3,
)
HELD_OUT = {"6": 2, "8": 2}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_examples(TINY, tmp_path_factory.mktemp("pairs") / "examples")


def samples(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "samples.parquet").set_index("sample_id")


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_the_command_line_is_frozen(capsys: pytest.CaptureFixture[str]) -> None:
    assert {field.name for field in fields(Arguments)} == {
        "axis", "out", "limit", "seed", "batch_size", "shard", "fresh", "allow_partial", "allow_mixed", "threads",
    }  # fmt: skip
    for arguments in ([], ["--axis", "seeds"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "guidance" in capsys.readouterr().err


@pytest.mark.slow
def test_the_sweep_has_the_ordinary_run_among_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the embedded data go to runs/
    out = tmp_path / "out"
    files = evaluate(Arguments(axis="guidance", out=out, limit=2))
    assert {path.name for path in files} >= {f"ablation-guidance.{kind}" for kind in ("csv", "md", "png", "tex")}
    piebench.evaluate(piebench.Arguments(out=out, limit=2, methods=("editar",)))
    sweep, ordinary = out / "miniature" / "ablation-guidance", out / "miniature" / "piebench" / "editar"
    same = sweep / "editar-eta-1.15"
    left_out = ["seconds"]
    pd.testing.assert_frame_equal(samples(same).drop(columns=left_out), samples(ordinary).drop(columns=left_out))
    settings = [manifest.method_settings for folder in (same, ordinary) if (manifest := read_manifest(folder))]
    assert settings[0] == settings[1] and settings[0]["sampling"]["guidance"] == 1.15
    strong = samples(sweep / "editar-eta-7.5")
    assert (strong["image_sha256"] != samples(same)["image_sha256"]).any()

    table = pd.read_csv(out / "reports" / "miniature" / "ablation-guidance.csv")
    assert list(dict.fromkeys(table["method"])) == [*REFERENCE_ROWS, *(f"eta {eta:g}" for eta in GUIDANCE)]
    row = table[(table["method"] == "eta 7.5") & (table["column"] == "SSIM")].iloc[0]
    assert row["mean"] == pytest.approx(100 * strong["ssim"].mean()) and pd.isna(row["low"])  # of two records
    with Image.open(out / "reports" / "miniature" / "ablation-guidance.png") as plot:
        assert plot.width > plot.height > 300

    before = stamps(out / "miniature")
    evaluate(Arguments(axis="guidance", out=out, limit=2))
    assert stamps(out / "miniature") == before


def test_variants_differ_by_the_distillation_alone(examples: Path) -> None:
    values, batches, weights = {}, {}, {}
    for teacher in TEACHERS:
        module = start(TINY, teacher, 1)
        weights[teacher] = {name: value for name, value in module.state_dict().items() if ".alignment." not in name}
        batches[teacher] = Examples.read(examples, TINY.shards, teacher).batch(1, 0, 4)
        torch.manual_seed(5)  # of the conditional dropout
        values[teacher] = distillation_loss(module, batches[teacher])
    assert "distillation" not in values[NONE] and batches[NONE][1] is None
    for teacher, width in ((DINO, 80), (CLIP, 128)):
        features = batches[teacher][1]
        assert features is not None and features.shape == (4, 16, width)
        for field in fields(Sequences):
            assert torch.equal(getattr(batches[teacher][0], field.name), getattr(batches[NONE][0], field.name))
        assert all(torch.equal(value, weights[NONE][name]) for name, value in weights[teacher].items())
        assert values[teacher]["cross_entropy"] == values[NONE]["loss"]
        added = values[teacher]["loss"] - values[teacher]["cross_entropy"]
        assert added.item() == pytest.approx(0.5 * values[teacher]["distillation"].item(), rel=1e-5) and added > 0


def test_teachers_features_are_standardised(examples: Path) -> None:
    for teacher in (DINO, CLIP):
        features = Examples.read(examples, TINY.shards, teacher).teacher
        assert features is not None
        spread, mean = torch.std_mean(features.float(), dim=(0, 1))
        assert mean.abs().max() < 1e-2 and ((spread - 1).abs() < 1e-2)[spread > 0].all()


def test_a_killed_training_goes_on_as_if_it_had_not_been(examples: Path, tmp_path: Path) -> None:
    whole = train_student(TINY, CLIP, 0, examples, tmp_path / "whole")
    pairs = Examples.read(examples, TINY.shards, CLIP)
    killed = replace(TINY.training, steps=1, seed=0)
    folder = tmp_path / "killed"
    train(start(TINY, CLIP, 0), distillation_loss, lambda step: pairs.batch(0, step, 4), killed, folder)
    resumed = train_student(TINY, CLIP, 0, examples, folder)
    weights = [load_file(folder / "transformer.safetensors") for folder in (whole, resumed)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    other = replace(TINY, training=replace(TINY.training, steps=4))
    with pytest.raises(ValueError):
        train_student(other, CLIP, 0, examples, folder)


@pytest.mark.slow
def test_from_training_to_table(examples: Path, tmp_path: Path) -> None:
    args = Arguments(axis="distillation", out=tmp_path)
    files = evaluate(args, TINY, HELD_OUT)
    folder, reports = tmp_path / "miniature" / "ablation-distillation", tmp_path / "reports" / "miniature"
    names = [f"{teacher}-seed-{seed}" for teacher in TEACHERS for seed in TINY.seeds]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, *REFERENCE_ROWS])
    assert {path.name for path in files} >= {f"ablation-distillation.{kind}" for kind in ("csv", "md", "png", "tex")}
    table = pd.read_csv(reports / "ablation-distillation.csv")

    def cell(block: str, method: str, kind: str, column: str) -> pd.Series:
        chosen = (table["block"] == block) & (table["method"] == method) & (table["kind"] == kind)
        [row] = [row for _, row in table[chosen].iterrows() if row["column"].startswith(column)]
        return row

    scores = {name: samples(folder / name) for name in names}
    fids = {name: json.loads((folder / name / "fid.json").read_text())["fid"] for name in names}
    both = cell("Measured, all seeds", "DINO stand-in", "2 seeds", "Error in the mask")
    parts = [scores[f"dinov2-seed-{seed}"]["error_in_mask"] for seed in TINY.seeds]
    assert both["mean"] == pytest.approx(100 * pd.concat(parts).mean())
    assert pd.isna(both["low"]) and pd.isna(both["high"])  # of so few records there is no interval
    one = cell("Measured, seed by seed", "CLIP stand-in", "seed 1", "FID")
    assert one["mean"] == pytest.approx(fids["clip-seed-1"]) and pd.isna(one["low"])
    difference = cell("Row minus no distillation", "CLIP stand-in", "2 seeds", "FID")
    expected = [fids[f"clip-seed-{seed}"] - fids[f"none-seed-{seed}"] for seed in TINY.seeds]
    assert difference["mean"] == pytest.approx(sum(expected) / 2)
    published = table[table["block"].str.startswith("Published")]
    assert published["mean"].tolist() == [16.35, 14.43, 16.52, 15.97, 13.91, 16.13]
    assert scores["none-seed-0"].loc["600000000000", "mse"] > 0
    copied = samples(folder / "copy-source")
    assert (copied["error_in_mask"] > 0).all() and not copied["followed"].any()
    sides = compare(folder / "none-seed-0", folder / "clip-seed-0", columns=["followed"])
    assert "| Error in the mask ×10^2 (lower is better) |" in sides
    assert f"A {fids['none-seed-0']:.2f}, B {fids['clip-seed-0']:.2f}" in sides

    before = stamps(tmp_path / "miniature")
    evaluate(args, TINY, HELD_OUT)
    assert stamps(tmp_path / "miniature") == before
    (folder / "none-seed-0" / "fid.json").unlink()
    with pytest.raises(ReportError, match=r"fid\.json"):
        ablations.render([folder / name for name in names], reports, axis="distillation")


def test_the_plan_is_the_one_that_the_committed_table_states() -> None:
    text = (Path(__file__).parents[2] / "reports" / "miniature" / "ablation-distillation.md").read_text()
    layers, training = ", ".join(map(str, PLAN.layers)), PLAN.training
    assert f"EditAR ({layers}), {training.steps} steps of {training.batch_size} pairs" in text
    assert f"| {len(PLAN.seeds)} seeds |" in text and len(PLAN.seeds) >= 2
