"""From run directories to the translation tables: what is printed, what is refused, what is said."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from baselines import TRANSLATORS
from reports.__main__ import main
from reports.runs import ReportError
from reports.tables.comparison import PUBLISHED as FOLDER
from reports.tables.mean_iou import mean_iou_interval
from reports.tables.translation import PUBLISHED, render
from reports.tables.two_runs import compare
from tests.reports.conftest import base_manifest, facts_of_method, merged, write_manifest

SCORES = {"depth": ["depth_rmse"], "canny": ["ms_ssim", "ssim", "f1"], "segmentation": []}
Write = Callable[..., Path]


def network(part: str, official: bool) -> dict[str, object]:
    return {"name": f"official-{part}" if official else "miniature-perception", "official": official, "digest": part}


def samples_frame(task: str, count: int, seed: int = 0) -> pd.DataFrame:
    """Two samples of a source image; three classes, of which the third is rare."""
    rng = np.random.default_rng(seed)
    numbers = range(count)
    counts = [
        {"0": [50 + i, 60 + i, 70 + i], "1": [20, 30, 25], **({"4": [1, 2, 3]} if i == 1 else {})} for i in numbers
    ]
    return pd.DataFrame(rng.uniform(0.1, 0.9, (count, len(SCORES[task]))), columns=SCORES[task]).assign(
        sample_id=[f"{i:05d}" for i in numbers],
        source_id=[f"source{i // 2}" for i in numbers],
        draw="0",
        status="done",
        error=pd.Series([None] * count, dtype="str"),
        image_sha256=[hashlib.sha256(f"{seed} {i}".encode()).hexdigest() for i in numbers],
        undefined=pd.Series([None] * count, dtype="str"),
        counts=[json.dumps(each) if task == "segmentation" else None for each in counts],
    )


@pytest.fixture
def write_run(tmp_path: Path) -> Write:
    """write_run(task, method, count=..., official=..., manifest={changes}, fid={changes}) -> the run directory."""

    def write(
        task: str,
        method: str,
        *,
        count: int = 12,
        seed: int = 0,
        official: bool = False,
        manifest: dict[str, Any] | None = None,
        fid: dict[str, Any] | None = None,
        samples: pd.DataFrame | None = None,
    ) -> Path:
        path = tmp_path / "runs" / "miniature" / f"translation-{task}" / method
        path.mkdir(parents=True)
        frame = samples_frame(task, count, seed) if samples is None else samples
        frame.to_parquet(path / "samples.parquet")
        parts = ["features", *([task] if task != "canny" else [])]
        base = (
            base_manifest(method, count)
            | facts_of_method(method, TRANSLATORS)
            | {
                "suite": "paper" if official else "miniature",
                "benchmark": f"translation-{task}",
                "protocol": "translation/editar-released/v1",
                "scoring": {"precision": "float32", "backbones": {part: network(part, official) for part in parts}},
            }
        )
        write_manifest(path, base, manifest)
        digests = "\n".join(sorted(frame["image_sha256"]))
        score = {
            "network": network("features", official),
            "generated": hashlib.sha256(digests.encode()).hexdigest(),
            "reference": "fedcba9876543210" * 4,
            **{"reference_images": 70, "dimension": 112, "images": len(frame), "fid": 12.5 + seed},
            "draws": {"0": {"images": len(frame), "fid": 12.5 + seed, "note": f"{len(frame)} images are few"}},
        }
        (path / "fid.json").write_text(json.dumps(merged(score, fid or {})))
        return path

    return write


def cell(out: Path, task: str, method: str, column: str) -> pd.Series:
    table = pd.read_csv(out / f"translation-{task}.csv")
    rows = table[(table["method"] == method) & table["column"].str.startswith(column)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_per_image_scores_have_intervals_and_fid_has_its_n(write_run: Write, tmp_path: Path) -> None:
    written = render([write_run("canny", "editar", count=140)], tmp_path, task="canny")
    assert {path.name for path in written} == {f"translation-canny.{kind}" for kind in ("md", "tex", "csv", "html")} | {
        "tables.tex"
    }
    frame = samples_frame("canny", 140)
    for title, key in (("MS-SSIM", "ms_ssim"), ("SSIM", "ssim"), ("F1", "f1")):
        row = cell(tmp_path, "canny", "editar", title)
        assert row["mean"] == pytest.approx(100 * frame[key].mean()) and row["low"] < row["mean"] < row["high"]
    fid = cell(tmp_path, "canny", "editar", "FID")
    assert (fid["mean"], fid["n"]) == (12.5, 140) and np.isnan(fid["low"])
    assert fid["note"] == "against 70 real images of digest fedcba987654, in 112 features; 140 images are few"
    text = (tmp_path / "translation-canny.md").read_text()
    assert "against 70 real images of digest fedcba987654, in 112 features" in text
    assert "FID of editar: 140 images are few." in text
    assert "FID (miniature-perception) ↓" in text and "| editar | unified |" in text


def test_mean_iou_is_of_all_pixels(write_run: Write, tmp_path: Path) -> None:
    render([write_run("segmentation", "editar", count=500)], tmp_path, task="segmentation")
    pixels: dict[str, np.ndarray] = {}
    for text in samples_frame("segmentation", 500)["counts"]:
        for name, counts in json.loads(text).items():
            pixels[name] = pixels.get(name, np.zeros(3)) + counts
    expected = np.mean([both / (predicted + labelled - both) for both, predicted, labelled in pixels.values()])
    row = cell(tmp_path, "segmentation", "editar", "mIoU")
    assert row["mean"] == pytest.approx(100 * expected) and row["low"] < row["high"]


def test_the_interval_of_mean_iou_is_that_of_a_loop_over_replicates() -> None:
    """Standard errors of the loop are the jackknife's: the mean IoU without each cluster in turn."""
    rng = np.random.default_rng(0)
    both = rng.integers(0, 50, (80, 4))
    counts = np.stack([both, both + rng.integers(0, 30, (80, 4)), both + rng.integers(0, 30, (80, 4))], axis=1)
    sums = counts.reshape(40, 2, 3, 4).sum(1)

    def value_and_error(chosen: np.ndarray) -> tuple[float, float]:
        total = sums[chosen].sum(0)
        every = np.concatenate([total[None], total - sums[chosen]])  # the whole, then without each
        means = (every[:, 0] / (every[:, 1] + every[:, 2] - every[:, 0])).mean(1)
        return means[0], np.sqrt(np.square(means[1:] - means[1:].mean()).sum() * 39 / 40)

    mean, error = value_and_error(np.arange(40))
    replicates = (value_and_error(rng.integers(40, size=40)) for _ in range(4000))
    low, high = np.quantile([(m - mean) / e for m, e in replicates], [0.025, 0.975])
    student = 2.022691  # of 39 degrees of freedom
    expected = mean - max(high, student) * error, mean - min(low, -student) * error
    estimate = mean_iou_interval(counts, ["0"] * 80, np.arange(80) // 2, replicates=8000, fewest=40)
    assert estimate.mean == pytest.approx(mean) and estimate.n == 80
    assert (estimate.low, estimate.high) == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))
    few = mean_iou_interval(counts, ["0"] * 80, np.arange(80) // 2)
    assert (few.mean, few.low, few.too_few) == (estimate.mean, None, True)


def test_mean_iou_of_several_draws_is_their_mean() -> None:
    counts = np.random.default_rng(1).integers(1, 50, (20, 3, 4))
    counts[:, 1:] += counts[:, :1]
    draws, clusters = np.array(["0", "1"] * 10), np.repeat(np.arange(10), 2)
    means = [mean_iou_interval(counts[draws == draw], ["0"] * 10, clusters[::2]).mean for draw in "01"]
    assert mean_iou_interval(counts, draws, clusters).mean == pytest.approx(np.mean([m for m in means if m]))
    assert mean_iou_interval(np.zeros((2, 3, 4)), ["0"] * 2, [0, 1]).mean is None
    assert mean_iou_interval(np.zeros((0, 3, 0)), [], []).n == 0


def test_published_rows_are_those_of_the_paper(write_run: Write, tmp_path: Path) -> None:
    for task, methods in (("depth", 6), ("canny", 6), ("segmentation", 3)):
        render([write_run(task, "editar")], tmp_path, task=task)
        table = pd.read_csv(tmp_path / f"translation-{task}.csv")
        published = table[table["source"] == "arXiv 2501.04699, Table 2"]
        assert published["method"].nunique() == methods and published["low"].isna().all()
    assert cell(tmp_path, "depth", "ControlNet++", "RMSE")["mean"] == 28.32
    assert cell(tmp_path, "canny", "EditAR", "MS-SSIM")["mean"] == 48.11
    assert np.isnan(cell(tmp_path, "canny", "EditAR", "F1")["mean"])
    assert cell(tmp_path, "segmentation", "EditAR", "FID")["mean"] == 16.13
    assert (tmp_path / "tables.tex").read_text().count(r"\input{translation-") == 3


def test_every_row_of_table_2_stands_beside_the_published_one(write_run: Write, tmp_path: Path) -> None:
    cards = {name: facts_of_method(name, TRANSLATORS)["card"] for name in TRANSLATORS}
    reproduced_by = pd.read_csv(FOLDER / PUBLISHED).set_index("reproduced_by")["method"].to_dict()
    assert {name: card["published_as"] for name, card in cards.items()} == reproduced_by
    for task, count in (("depth", 6), ("segmentation", 3)):
        runs = [write_run(task, method, seed=number) for number, method in enumerate(sorted(TRANSLATORS))]
        render(runs, tmp_path, task=task)
        table = pd.read_csv(tmp_path / f"translation-{task}.csv")
        table = table[table["column"].str.startswith("FID")].fillna({"published_as": ""})
        published, measured = table[table["source"] != "measured"], table[table["source"] == "measured"]
        assert published["published_as"].tolist() == published["method"].tolist() and len(published) == count
        assert measured["published_as"].tolist()[:count] == published["published_as"].tolist()
        assert [cards[method]["published_as"] for method in measured["method"]] == measured["published_as"].tolist()
        assert (measured["mean"] >= 12.5).all() and measured["mean"].nunique() == len(measured) == 6
        kinds = [kind.partition(",")[0] for kind in published["kind"]]
        assert measured["kind"].tolist()[:count] == kinds and set(kinds) == {"unified", "one task"}


def test_references_stand_first_and_compete_with_none(write_run: Write, tmp_path: Path) -> None:
    card = {"kind": "reference", "note": "what bounds the others", "published_as": ""}
    perfect = samples_frame("canny", 140).assign(ms_ssim=1.0, ssim=1.0, f1=1.0)
    runs = [write_run("canny", method, count=140, seed=seed) for seed, method in enumerate(("editar", "controlnet"))]
    runs.append(write_run("canny", "real-image", count=140, samples=perfect, manifest={"card": card}))
    render(runs, tmp_path, task="canny")
    text = (tmp_path / "translation-canny.md").read_text()
    rows = [line for line in text.partition("published with EditAR")[0].splitlines() if line.startswith("|")][3:]
    assert rows[0].startswith("| real-image | reference |") and "**" not in rows[0]
    assert "- real-image is a reference: what bounds the others." in text
    assert "real-image" not in (tmp_path / "translation-canny-pairwise.md").read_text()


def test_published_methods_that_were_not_measured_say_so(write_run: Write, tmp_path: Path) -> None:
    render([write_run("depth", "mine", seed=1), write_run("depth", "editar")], tmp_path, task="depth")
    text = (tmp_path / "translation-depth.md").read_text().partition("published with EditAR")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")][3:]
    assert rows[:3] == [
        "| t2i-adapter | one task | – | – | not measured |",
        "| uni-controlnet | unified | – | – | not measured |",
        "| unicontrol | unified | – | – | not measured |",
    ]
    assert [line.split(" | ")[0] for line in rows[3:]] == [
        "| controlnet",
        "| controlnet-plus-plus",
        "| editar",
        "| mine",
    ]
    absent = cell(tmp_path, "depth", "uni-controlnet", "RMSE")
    assert np.isnan(absent["mean"]) and (absent["note"], absent["done"], absent["n"]) == ("not measured", 0, 0)
    assert "not measured" in (tmp_path / "translation-depth.tex").read_text()


def test_a_score_that_no_image_has_says_why_in_table_and_csv(write_run: Write, tmp_path: Path) -> None:
    reason = "a side is below 176 pixels: MS-SSIM has no fifth scale"
    frame = samples_frame("canny", 12).assign(ms_ssim=np.nan, undefined=json.dumps({"ms_ssim": reason}))
    frame.loc[0, "f1"] = np.nan
    frame.loc[0, "undefined"] = json.dumps({"ms_ssim": reason, "f1": "neither map has an edge"})
    render([write_run("canny", "editar", samples=frame)], tmp_path, task="canny")
    text = (tmp_path / "translation-canny.md").read_text()
    assert f"- MS-SSIM undefined for all 12 samples: {reason}." in text
    assert "- F1 undefined for 1 sample: neither map has an edge." in text
    assert "MS-SSIM of the edges is what the paper's code takes and its table calls SSIM." in text
    row = cell(tmp_path, "canny", "editar", "MS-SSIM")
    assert np.isnan(row["mean"]) and row["n"] == 0 and row["note"] == f"12 undefined: {reason}"
    assert cell(tmp_path, "canny", "editar", "F1")["note"] == "1 undefined: neither map has an edge"


def test_published_and_measured_share_a_table_only_where_they_mean_the_same(write_run: Write, tmp_path: Path) -> None:
    render([write_run("depth", "editar", count=5000, official=True)], tmp_path / "same", task="depth")
    assert (tmp_path / "same" / "translation-depth.md").read_text().count("| Method |") == 1
    other = {"protocol": "translation/aligned/v1"}
    render([write_run("depth", "other", manifest=other)], tmp_path / "apart", task="depth")
    text = (tmp_path / "apart" / "translation-depth.md").read_text()
    assert text.count("| Method |") == 2
    reasons = "other images, other scoring networks, the protocol translation/aligned/v1, 12 records instead of 5000"
    assert f"Not comparable with the measured rows, which have {reasons}." in text


@pytest.mark.parametrize(
    ("fid", "message"),
    [
        ({"generated": "0" * 64}, "not of the images in samples.parquet"),
        ({"network": {"digest": "other"}}, "of another network"),
        ({"draws": None}, None),
    ],
)
def test_an_fid_of_something_else_is_refused(
    write_run: Write, tmp_path: Path, fid: dict[str, Any], message: str | None
) -> None:
    path = write_run("depth", "editar", fid=fid)
    if message is None:
        (path / "fid.json").unlink()
    with pytest.raises(ReportError, match=message or r"fid\.json"):
        render([path], tmp_path / "out", task="depth")


def test_fids_against_different_real_images_are_refused(write_run: Write, tmp_path: Path) -> None:
    runs = [write_run("depth", "a"), write_run("depth", "b", seed=1, fid={"reference": "0" * 64})]
    with pytest.raises(ReportError):
        render(runs, tmp_path / "out", task="depth")


def test_failed_samples_are_stamped(write_run: Write, tmp_path: Path) -> None:
    frame = samples_frame("depth", 11)
    run = write_run("depth", "editar", count=12, samples=frame)
    with pytest.raises(ReportError, match="11 of 12"):
        render([run], tmp_path / "out", task="depth")
    render([run], tmp_path / "out", True, task="depth")
    assert "| 11/12 |" in (tmp_path / "out" / "translation-depth.md").read_text()


def test_the_command_line_renders_every_task(write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for write in (partial(write_run, task) for task in SCORES):
        write("editar")
        write("other", seed=1)
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    names = {path.name for path in (tmp_path / "reports" / "miniature").glob("*.md")}
    assert names == {f"translation-{task}{page}.md" for task in SCORES for page in ("", "-pairwise")}
    table = pd.read_csv(tmp_path / "reports" / "miniature" / "translation-segmentation-pairwise.csv").set_index(
        "column"
    )
    iou, fid = table.loc["mIoU (miniature-perception)"], table.loc["FID (miniature-perception)"]
    assert iou["block"] == "editar minus the row" and iou["p"] == iou["p_holm"] == 1  # the same counts in both
    assert np.isnan(fid["p"]) and fid["note"] == "FID is one number of all images: no interval and no test"


def test_two_runs_compared_by_the_iou_of_their_images_and_by_fid(write_run: Write) -> None:
    """Class 0 of image i has IoU (50 + i) / (80 + i), class 1 20 / 35, class 4 of image 1 has 1 / 4."""
    better = samples_frame("segmentation", 12)
    better.loc[3, "counts"] = json.dumps({"0": [10, 10, 10]})
    runs = write_run("segmentation", "editar"), write_run("segmentation", "other", samples=better, fid={"fid": 9.0})
    text = compare(*runs)
    assert "FID, of all images together and without an interval: A 12.50, B 9.00" in text
    moved = next(row for row in text.splitlines() if row.startswith("| 00003 "))
    before = 50 * (53 / 83 + 20 / 35)
    assert moved == f"| 00003 | {before:.2f} | 100.00 | {100 - before:.2f} | – |"
    assert sum(row.startswith("| 000") for row in text.splitlines()) == 1  # the others did not move
