"""From run directories to the PIE-Bench tables: what is printed, what is refused, what is said."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baselines import METHODS
from baselines.method import MethodContext
from reports.__main__ import main
from reports.runs import ReportError
from reports.tables.piebench import render

PUBLISHED_METHODS = 11
FILES = ["piebench", "piebench-table1", "piebench-by-type", "piebench-differences"]


def read(out: Path, name: str = "piebench") -> pd.DataFrame:
    return pd.read_csv(out / f"{name}.csv", dtype={"edit_type": str, "dataset_digest": str})


def cell(out: Path, method: str, column: str, name: str = "piebench") -> pd.Series:
    table = read(out, name)
    rows = table[(table["method"] == method) & (table["column"] == column)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_files_written(write_run, tmp_path):
    written = render([write_run("editar"), write_run("copy-source", seed=1)], tmp_path / "out")
    expected = {f"{name}.{kind}" for name in FILES for kind in ("md", "tex", "csv", "html")} | {"tables.tex"}
    assert {path.name for path in written} == {path.name for path in (tmp_path / "out").iterdir()} == expected


def test_one_run_has_no_differences_not_even_old_ones(write_run, tmp_path):
    runs = [write_run("editar"), write_run("copy-source", seed=1)]
    render(runs, tmp_path / "out")
    render(runs[:1], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*differences*"))
    assert "differences" not in (tmp_path / "out" / "tables.tex").read_text()


def test_rendering_twice_writes_the_same_bytes(write_run, tmp_path):
    runs = [write_run("editar"), write_run("other", seed=1)]
    first, second = (render(runs, tmp_path / out) for out in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_published_and_measured_rows_share_a_name_in_the_csv(write_run, tmp_path):
    runs = [write_run(method, seed=seed) for seed, method in enumerate(["masactrl", "pnp-inversion", "mine"])]
    render(runs, tmp_path)
    rows = read(tmp_path).query("column == 'PSNR'").fillna({"published_as": ""})
    published = rows[rows["source"] != "measured"]
    assert published["published_as"].tolist() == published["method"].tolist()
    context = MethodContext(suite="paper", weights=None, device="cpu", image_side=512)
    cards = {name: build(context).card for name, build in METHODS.items()}
    assert {card.published_as for card in cards.values()} - {""} == set(published["method"])
    unpublished = {name for name, card in cards.items() if not card.published_as}
    assert unpublished == {name for name, card in cards.items() if card.kind == "reference"} != set()
    measured = rows[rows["source"] == "measured"].set_index("method")["published_as"]
    assert measured.to_dict() == {"masactrl": "MasaCtrl", "pnp-inversion": "PnP Inversion", "mine": ""}


def test_means_are_scaled_and_counted(write_run, frame, tmp_path):
    run = write_run("editar", count=140, seed=3)
    render([run], tmp_path)
    samples = frame(140, 3)
    scales = {"Structure distance (miniature-perception)": 1e3, "PSNR": 1, "MSE": 1e4, "SSIM": 1e2}
    keys = ("structure_distance", "psnr", "mse", "ssim")
    for (title, scale), key in zip(scales.items(), keys, strict=True):
        row = cell(tmp_path, "editar", title)
        assert row["mean"] == pytest.approx(samples[key].mean() * scale)
        assert row["low"] < row["mean"] < row["high"]
        assert (row["scale"], row["n"], row["done"], row["expected"]) == (scale, 140, 140, 140)


def test_published_rows_are_those_of_the_paper(write_run, tmp_path):
    render([write_run("editar")], tmp_path)
    table = read(tmp_path)
    published = table[table["source"] == "arXiv 2501.04699, Table 3"]
    assert published["method"].nunique() == PUBLISHED_METHODS
    assert len(published) == PUBLISHED_METHODS * 7
    assert published[["low", "high", "n"]].isna().all(axis=None)
    editar = published[published["method"] == "EditAR"].set_index("column")["mean"]
    assert editar["Structure distance"] == 39.43
    assert editar["CLIP edited"] == 21.87
    text = (tmp_path / "piebench.md").read_text()
    assert "| PnP Inversion | inversion, SD1.4 | **11.65** | **27.22** |" in text
    assert "<ins>13.44</ins> | <ins>27.03</ins>" in text


def test_miniature_columns_carry_their_backbone_and_the_paper_stands_apart(write_run, tmp_path):
    render([write_run("editar")], tmp_path)
    measured, published = (tmp_path / "piebench.md").read_text().split("PIE-Bench, published with EditAR")
    assert "Structure distance (miniature-perception) ×10³ ↓" in measured
    assert "CLIP edited (miniature-perception) ×10² ↑" in measured
    assert "| PSNR ↑ |" in measured
    assert "miniature" not in published
    assert "| Structure distance ×10³ ↓ | PSNR ↑ |" in published
    assert "Not comparable with the measured rows, which have other images, other scoring networks" in published
    assert "EditAR" not in measured.replace("published with EditAR", "")


def test_the_whole_of_pie_bench_shares_the_published_columns(write_run, paper_manifest, tmp_path):
    render([write_run("editar", count=700, manifest=paper_manifest)], tmp_path)
    text = (tmp_path / "piebench.md").read_text()
    assert text.count("| Method |") == 1
    assert "| Structure distance ×10³ ↓ | PSNR ↑ |" in text
    assert text.index("**Published") < text.index("| EditAR |") < text.index("**Measured**") < text.index("| editar |")
    assert "Not comparable" not in text
    ours, deviation = (cell(tmp_path, "editar", "PSNR", name) for name in ("piebench", "piebench-deviation"))
    moved = ours[["mean", "low", "high"]].astype(float) - 21.32
    assert deviation[["mean", "low", "high"]].tolist() == pytest.approx(moved.tolist())
    assert deviation["note"] == "published 21.32"


def test_a_part_of_pie_bench_stands_apart(write_run, paper_manifest, tmp_path):
    render([write_run("editar", count=10, manifest=paper_manifest)], tmp_path)
    text = (tmp_path / "piebench.md").read_text()
    assert "which have 10 records instead of 700. So there is no deviation from the published values." in text
    assert not list(tmp_path.glob("piebench-deviation.*"))


def test_table_1_has_its_rows(write_run, tmp_path):
    render([write_run(name, seed=i) for i, name in enumerate(["magicbrush", "masactrl", "mine"])], tmp_path)
    table = read(tmp_path, "piebench-table1").query("column == 'PSNR'")
    assert table[table["source"] == "measured"]["method"].tolist() == ["masactrl", "mine"]
    published = set(table[table["source"] != "measured"]["method"])
    assert len(published) == 8 and "MagicBrush" not in published


def test_all_pairs_are_tested_and_corrected(write_run, frame, tmp_path):
    samples = frame(140, 2)
    better = samples.assign(psnr=samples["psnr"] + np.linspace(0.2, 0.3, 140))
    runs = [write_run("masactrl", samples=better, count=140), write_run("editar", samples=samples, count=140)]
    runs.append(write_run("mine", count=140))
    render([*runs, write_run("copy-source", count=140, seed=4)], tmp_path)
    table = read(tmp_path, "piebench-pairwise").query("column == 'PSNR'").set_index(["block", "method"])
    pairs = [("editar", "masactrl"), ("editar", "mine"), ("masactrl", "mine")]
    assert list(table.index) == [(f"{first} minus the row", second) for first, second in pairs]
    clear = table.loc[("editar minus the row", "masactrl")]
    assert clear[["mean", "low", "high"]].tolist() == pytest.approx([-0.25, -0.257, -0.243], abs=0.001)
    assert clear["p"] == pytest.approx(1 / 10_000) and clear["p_holm"] == pytest.approx(3 / 10_000)
    assert ((table["p"] < 0.05) == (table["low"] * table["high"] > 0)).all() and (table["p_holm"] >= table["p"]).all()
    assert "**-0.25** [-0.26, -0.24] p=0.0003" in (tmp_path / "piebench-pairwise.md").read_text()


def test_bold_rows_are_those_that_the_test_of_all_pairs_does_not_find_worse(write_run, frame, tmp_path):
    """a is best; b is worse by noise, c clearly; a reference is better than all."""
    samples, noise = frame(140, 2), np.random.default_rng(0).normal(0, 0.05, 140)
    noise -= noise.mean()
    methods = {"a": 0.1, "b": 0.099 + noise, "c": noise / 9, "copy-source": 9.0}
    runs = [
        write_run(name, samples=samples.assign(psnr=samples["psnr"] + by), count=140) for name, by in methods.items()
    ]
    render(runs, tmp_path)
    table = read(tmp_path).query("column == 'PSNR' and source == 'measured'").set_index("method")
    pairs = read(tmp_path, "piebench-pairwise").query("column == 'PSNR'").set_index(["block", "method"])
    assert table.loc["a", "p_best"] == 1 and np.isnan(table.loc["copy-source", "p_best"])
    for worse in "bc":
        assert table.loc[worse, "p_best"] == pairs.loc[("a minus the row", worse), "p_holm"]
    assert table.loc["b", "p_best"] > 0.05 > table.loc["c", "p_best"]
    text = (tmp_path / "piebench.md").read_text()
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert [f"**{table.loc[name, 'mean']:.2f}**" in lines[name] for name in table.index] == [
        name in "ab" for name in table.index
    ]


def test_few_source_images_have_no_interval_and_the_table_says_why(write_run, tmp_path):
    render([write_run("editar"), write_run("masactrl", seed=1)], tmp_path)
    for name in FILES:
        assert read(tmp_path, name).query("source == 'measured'")[["low", "high"]].isna().all(axis=None)
        assert "No interval for fewer than 60 source images" in (tmp_path / f"{name}.md").read_text()
        assert "No interval for fewer than 60 source images" in (tmp_path / f"{name}.html").read_text()


def test_plots_have_the_same_bytes_and_go_with_the_tables(write_run, tmp_path):
    runs = [write_run("editar"), write_run("masactrl", seed=1)]
    for out in ("a", "b"):
        render(runs, tmp_path / out, plots=True)
    plots = sorted(path for path in (tmp_path / "a").iterdir() if path.suffix in (".png", ".pdf"))
    assert [path.name for path in plots] == [
        f"piebench-{plot}.{kind}" for plot in ("bars", "tradeoff") for kind in ("pdf", "png")
    ]
    assert [path.read_bytes() for path in plots] == [(tmp_path / "b" / path.name).read_bytes() for path in plots]
    assert all(b"Date" not in path.read_bytes() and b"Matplotlib" not in path.read_bytes() for path in plots)
    assert 'src="piebench-bars.png"' in (tmp_path / "a" / "piebench.html").read_text()
    render(runs, tmp_path / "a")  # without plots: none of other numbers stay
    assert not [path for path in plots if path.exists()]


def test_caption_names_the_conditions(write_run, tmp_path):
    render([write_run("editar", manifest={"seed": 7, "scoring": {"precision": "bfloat16"}})], tmp_path)
    caption = (tmp_path / "piebench.tex").read_text().split(r"\caption{")[1].split("\n")[0].replace("-{}", "-")
    for fact in (
        "pie-bench/v1",
        "suite miniature",
        "bfloat16",
        "seed 7",
        "12 records",
        "abcdef012345",
        r"95\%",
        "source",
    ):
        assert fact in caption


def test_references_are_named_and_not_marked(write_run, frame, tmp_path):
    perfect = frame(12, 0).assign(structure_distance=0.0, lpips=0.0, mse=0.0, ssim=1.0)
    runs = [write_run("copy-source", samples=perfect), *(write_run(f"m{i}", seed=i) for i in (1, 2, 3))]
    render(runs, tmp_path)
    text = (tmp_path / "piebench.md").read_text()
    copy = next(line for line in text.splitlines() if line.startswith("| copy"))
    assert "| reference | 0.00" in copy
    assert "**" not in copy
    assert "<ins>" not in copy
    assert "copy-source is a reference: nothing edited, the floor for editing and the ceiling for preservation" in text


def test_by_type_averages_the_samples_of_the_type(write_run, frame, tmp_path):
    render([write_run("editar", seed=2)], tmp_path)
    table = read(tmp_path, "piebench-by-type")
    samples = frame(12, 2)
    for edit_type, name in (("0", "random"), ("1", "change object")):
        row = table[(table["edit_type"] == edit_type) & (table["column"] == "PSNR")].iloc[0]
        assert row["block"] == name
        assert row["mean"] == pytest.approx(samples.loc[samples["edit_type"] == edit_type, "psnr"].mean())
        assert row["n"] == 6


def test_differences_are_to_editar_and_paired(write_run, frame, tmp_path):
    samples = frame(12, 2)
    better = samples.assign(psnr=samples["psnr"] + 0.25)
    render([write_run("better", samples=better), write_run("editar", samples=samples)], tmp_path)
    row = cell(tmp_path, "better", "PSNR", "piebench-differences")
    assert row["mean"] == pytest.approx(0.25) and row["p"] == 2 / 2**6  # six source images, all better
    assert read(tmp_path, "piebench-differences")["method"].unique().tolist() == ["better"]


def test_undefined_values_are_left_out_counted_and_explained(write_run, frame, tmp_path):
    samples = frame(12, 2)
    samples.loc[:1, "psnr"] = np.nan
    samples.loc[:1, "undefined"] = json.dumps({"psnr": "the mask covers the image"})
    render([write_run("editar", samples=samples)], tmp_path)
    row = cell(tmp_path, "editar", "PSNR")
    assert row["mean"] == pytest.approx(samples["psnr"][2:].mean())
    assert (row["n"], row["done"]) == (10, 12)
    text = (tmp_path / "piebench.md").read_text()
    assert "(n=10)" in text
    assert "PSNR undefined for 2 samples: the mask covers the image" in text
    assert "(n=10)" in (tmp_path / "piebench.tex").read_text()


def test_a_run_with_infinite_scores_is_refused(write_run, frame, tmp_path):
    with pytest.raises(ReportError, match=r"copy-source.*psnr"):
        render([write_run("copy-source", samples=frame(12, 2).assign(psnr=np.inf)), write_run("editar")], tmp_path)


def test_one_record_has_no_interval(write_run, tmp_path):
    render([write_run("editar", count=1)], tmp_path)
    assert read(tmp_path)[["low", "high"]].isna().all(axis=None)
    line = next(line for line in (tmp_path / "piebench.md").read_text().splitlines() if line.startswith("| editar"))
    assert "[" not in line
    assert line.endswith("| 1 |")


def failed_and_missing(frame: pd.DataFrame) -> pd.DataFrame:
    """12 records: one failed, one never reached."""
    frame = frame[:-1].copy()
    frame.loc[0, ["status", "error"]] = ["failed", "out of memory"]
    frame.loc[0, ["psnr", "mse"]] = np.nan
    return frame


def test_unfinished_runs_are_refused_unless_asked_for(write_run, frame, tmp_path):
    run = write_run("editar", samples=failed_and_missing(frame(12, 0)))
    with pytest.raises(ReportError, match=r"10 of 12 .*--allow-partial"):
        render([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    other = write_run("other")
    render([run, other], tmp_path / "out", allow_partial=True)
    text = (tmp_path / "out" / "piebench.md").read_text()
    assert [line.endswith("| 10/12 |") for line in text.splitlines() if line.startswith("| editar")] == [True]
    assert [line.endswith("| 12 |") for line in text.splitlines() if line.startswith("| other")] == [True]
    assert (cell(tmp_path / "out", "editar", "MSE")[["n", "done", "expected"]] == [10, 10, 12]).all()
    assert "| 10/12 |" in (tmp_path / "out" / "piebench-differences.md").read_text()
    by_type = (tmp_path / "out" / "piebench-by-type.md").read_text()
    assert by_type.count("| 5/6 |") == 2


def test_records_that_nobody_reached_are_mentioned(write_run, frame, tmp_path):
    render([write_run("editar", samples=failed_and_missing(frame(12, 0)))], tmp_path, allow_partial=True)
    assert "1 records were reached by no method" in (tmp_path / "piebench-by-type.md").read_text()


@pytest.mark.parametrize(
    "field, change",
    [
        ("suite", {"suite": "paper"}),
        ("protocol", {"protocol": "pie-bench/v2"}),
        ("dataset.digest", {"dataset": {"digest": "0" * 64}}),
        ("scoring.precision", {"scoring": {"precision": "bfloat16"}}),
        ("scoring.backbones", {"scoring": {"backbones": {"clip": {"digest": "f" * 64}}}}),
        ("seed", {"seed": 1}),
        ("counts.expected", {"counts": {"expected": 13}}),
    ],
)
def test_runs_that_differ_are_refused_by_name(write_run, tmp_path, field, change):
    runs = [write_run("first"), write_run("second", manifest=change)]
    with pytest.raises(ReportError, match=field):
        render(runs, tmp_path / "out", allow_partial=True)


def test_runs_over_different_samples_are_refused(write_run, frame, tmp_path):
    renamed = frame(12, 0).replace({"sample_id": {"000000000000": "000000000099"}})
    with pytest.raises(ReportError):
        render([write_run("first"), write_run("second", samples=renamed)], tmp_path)
    moved = frame(12, 0).replace({"source_id": {"source5": "source6"}})
    with pytest.raises(ReportError, match="source_id"):
        render([write_run("third"), write_run("fourth", samples=moved)], tmp_path)


def test_one_method_twice_is_refused(write_run, tmp_path):
    with pytest.raises(ReportError):
        render([write_run("editar", folder="a"), write_run("editar", folder="b")], tmp_path)


def test_broken_run_directories_are_named(write_run, frame, tmp_path):
    with pytest.raises(ReportError):
        render([], tmp_path)
    run = write_run("editar")
    (run / "samples.parquet").write_bytes(b"PAR1")
    with pytest.raises(ReportError):
        render([run], tmp_path)
    (run / "samples.parquet").unlink()
    with pytest.raises(ReportError):
        render([run], tmp_path)
    with pytest.raises(ReportError, match="schema_version"):
        render([write_run("new", manifest={"schema_version": 2})], tmp_path)
    with pytest.raises(ReportError, match="ssim"):
        render([write_run("short", samples=frame(12, 0).drop(columns="ssim"))], tmp_path)
    with pytest.raises(ReportError, match="counts"):
        render([write_run("counts", manifest={"counts": None})], tmp_path)
    with pytest.raises(ReportError):
        render([write_run("twice", samples=pd.concat([frame(6, 0), frame(6, 0)]))], tmp_path)


def test_command_line_renders_what_it_finds(write_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run("editar", folder="miniature/piebench/editar")
    write_run("other", folder="miniature/piebench/other")
    assert main([]) == 0
    assert (tmp_path / "reports" / "miniature" / "piebench.md").is_file()
    assert str(Path("reports/miniature/piebench.md")) in capsys.readouterr().out
    assert main(["--runs", "runs/miniature/piebench", "--out", "elsewhere"]) == 0
    assert (tmp_path / "elsewhere" / "piebench-differences.tex").is_file()


def test_command_line_says_what_is_wrong(write_run, frame, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "no run directories in runs" in capsys.readouterr().err
    write_run("editar", samples=failed_and_missing(frame(12, 0)), folder="miniature/piebench/editar")
    assert main([]) == 1
    assert "10 of 12 samples are done" in capsys.readouterr().err
    assert main(["--allow-partial"]) == 0
