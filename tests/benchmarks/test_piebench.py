"""`benchmarks.piebench` from data to table, with small scoring networks."""

import json
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from baselines import METHODS
from baselines.method import MethodContext
from baselines.references import CopySource
from benchmarks.datasets.faults import DatasetError
from benchmarks.piebench import Arguments, evaluate, main
from benchmarks.runs.schema import RunError
from benchmarks.suites import SUITES, Suite
from reports.runs import ReportError
from tests.benchmarks import standins
from tests.benchmarks.sharded import TINY
from tests.benchmarks.tiny import SIDE, entry, picture, write_mapping, write_piebench
from tests.sheets import tops

PARITY = Path(__file__).parents[1] / "parity" / "pie_bench"
COLUMNS = ["structure_distance", "psnr", "lpips", "mse", "ssim", "clip_whole", "clip_edited"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_piebench(tmp_path / "data")
    return tmp_path / "data"


def rows(out: Path, method: str, suite: str = "tiny") -> pd.DataFrame:
    return pd.read_parquet(out / suite / "piebench" / method / "samples.parquet").set_index("sample_id")


def test_the_command_line_is_frozen() -> None:
    flags = {field.name for field in fields(Arguments)}
    assert flags == {
        "suite", "methods", "data", "weights", "out", "limit", "seed", "batch_size", "shard", "fresh", "allow_partial",
        "allow_mixed", "dry_run", "images", "label", "precision", "clip", "follow_links", "threads", "images_at_once",
    }  # fmt: skip
    assert {"editar", "copy-source", "vq-reconstruction"} <= set(METHODS)


def test_every_flag_is_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for flag in (
        "--suite", "--methods", "--data", "--weights", "--out", "--limit", "--seed", "--batch-size", "--shard",
        "--fresh", "--allow-partial", "--dry-run", "--images", "--label", "--precision",
    ):  # fmt: skip
        assert f"{flag} " in text


def test_from_data_to_table(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = Arguments(data=data, out=tmp_path / "out", methods=("copy-source",), batch_size=4)
    written = evaluate(args, TINY)
    assert all(path.is_file() and path.is_relative_to(tmp_path / "out") for path in written)
    assert "| copy-source |" in capsys.readouterr().out

    table = rows(tmp_path / "out", "copy-source")
    assert list(table.index) == sorted(table.index) and len(table) == 6
    assert (table["mse"] == 0).all() and (table["ssim"] > 0.999).all() and table["psnr"].isna().all()
    assert all("psnr" in json.loads(text) for text in table["undefined"])
    assert table["edit_type_name"].tolist()[:3] == ["random", "change object", "add object"]
    assert table["source_id"].nunique() == 6
    for path in (tmp_path / "out").glob("tiny/piebench/copy-source/images/*.png"):
        source = data / "annotation_images" / entry(int(path.stem))["image_path"]
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(source)))

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "tiny").rglob("*")}
    assert evaluate(args, TINY) == written
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "tiny").rglob("*")} == stamps


def test_the_sheet_shows_sources_and_edits_beside_each_other(data: Path, tmp_path: Path) -> None:
    """References are no edits, and are left out where there are edits."""
    folder = tmp_path / "edits"
    for number in range(6):
        path = folder / entry(number)["image_path"]
        path.parent.mkdir(parents=True)
        picture(50 + number).save(path)
    args = Arguments(data=data, out=tmp_path / "out", methods=("copy-source",), images=folder, label="some")
    [path] = [path for path in evaluate(args, TINY) if path.suffix == ".png"]
    assert path == tmp_path / "out" / "reports" / "tiny" / "piebench.png"
    sheet = Image.open(path)
    found = [[tops(sheet, column, picture(n + number)) for column, n in ((0, 0), (1, 50))] for number in range(6)]
    assert [len(source) for source, _ in found] == [1, 1, 0, 1, 1, 1]  # 5 of 6 are shown
    assert all(source == edit for source, edit in found) and sheet.width < 3 * 128


def test_batch_size_and_shards_do_not_move_a_score(data: Path, tmp_path: Path) -> None:
    evaluate(Arguments(data=data, out=tmp_path / "a", methods=("copy-source",), batch_size=6), TINY)
    for index in (1, 0):
        shard = f"{index}/2"
        args = Arguments(data=data, out=tmp_path / "b", methods=("copy-source",), batch_size=1, shard=shard)
        assert bool(evaluate(args, TINY)) == (index == 0)  # the last one renders
    one, other = (rows(tmp_path / name, "copy-source") for name in "ab")
    np.testing.assert_allclose(one[COLUMNS].astype(float), other[COLUMNS].astype(float), rtol=1e-5, atol=1e-6)


def test_a_method_knows_how_many_samples_the_data_set_has(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []

    class Counting(CopySource):
        def __init__(self, context: MethodContext) -> None:
            counts.append(context.samples)
            super().__init__(context)

    monkeypatch.setitem(METHODS, "counting", Counting)
    evaluate(Arguments(data=data, out=tmp_path / "out", methods=("counting",), limit=2, shard="0/2"), TINY)
    assert counts and set(counts) == {6}


def test_other_scoring_networks_are_another_run(data: Path, tmp_path: Path) -> None:
    args = Arguments(data=data, out=tmp_path / "out", methods=("copy-source",))
    evaluate(args, TINY)
    other = Suite(name="tiny", image_side=SIDE, dataset=TINY.dataset, backbones=lambda *_: standins.backbones(seed=1))
    with pytest.raises(ValueError):
        evaluate(args, other)


def test_another_clip_is_another_run_and_named_in_its_column(data: Path, tmp_path: Path) -> None:
    """Only the CLIP columns change."""
    folder = standins.write_open_clip(tmp_path / "tiny-clip")
    suite = replace(TINY, backbones=SUITES["miniature"].backbones)
    args = Arguments(data=data, out=tmp_path / "out", methods=("copy-source",))
    evaluate(args, suite)
    own = rows(tmp_path / "out", "copy-source")
    with pytest.raises(ValueError, match=r"clip\.digest"):
        evaluate(replace(args, clip=str(folder)), suite)
    evaluate(replace(args, clip=str(folder), out=tmp_path / "other"), suite)
    other = rows(tmp_path / "other", "copy-source")
    changed = [column for column in COLUMNS if not own[column].equals(other[column])]
    assert changed == ["clip_whole", "clip_edited"]
    manifest = json.loads((tmp_path / "other" / "tiny" / "piebench" / "copy-source" / "manifest.json").read_text())
    clip = manifest["scoring"]["backbones"]["clip"]
    assert clip == {"name": f"tiny-clip@{clip['digest'][:8]}", "official": False, "digest": clip["digest"]}
    assert clip["name"] in (tmp_path / "other" / "reports" / "tiny" / "piebench.md").read_text()


def test_a_dry_run_lists_the_official_clip_only_where_it_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = Arguments(suite="paper", methods=("copy-source",), dry_run=True)
    for clip, listed in ((None, True), ("openai/ViT-L-14", True), ("laion2b_s32b_b79k/ViT-H-14", False)):
        assert evaluate(replace(given, clip=clip)) == []
        assert ("clip-vit-large-patch14/model.safetensors" in capsys.readouterr().out) == listed


EDIT = """
import json, sys
from pathlib import Path
from PIL import Image, ImageOps
folder = Path(sys.argv[1])
for line in (folder / "requests.jsonl").read_text().splitlines():
    request = json.loads(line)
    if request["sample_id"].endswith("3") and not Path("mended").exists():
        raise SystemExit("three is too hard")
    ImageOps.invert(Image.open(folder / request["image"])).save(folder / "answers" / (request["sample_id"] + ".png"))
"""


def test_an_external_method_with_a_failing_sample(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edit.py").write_text(EDIT)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'name = "inverter"\ncommand = {[sys.executable, "edit.py", "{folder}"]!r}\n')
    args = Arguments(data=data, out=tmp_path / "out", methods=("copy-source", f"external:{recipe}"), batch_size=3)
    with pytest.raises(ReportError, match="--allow-partial"):
        evaluate(args, TINY)
    assert "sample 000000000003 failed" in (errors := capsys.readouterr().err) and "three is too hard" in errors
    assert rows(tmp_path / "out", "inverter")["status"].tolist() == ["done"] * 3 + ["failed"] + ["done"] * 2

    partial = Arguments(**{**vars(args), "allow_partial": True})
    assert evaluate(partial, TINY)
    assert "5/6" in capsys.readouterr().out

    (tmp_path / "mended").touch()
    assert evaluate(args, TINY)
    assert (rows(tmp_path / "out", "inverter")["status"] == "done").all()
    assert (rows(tmp_path / "out", "inverter")["mse"] > 0).all()


def write_edits(folder: Path, suffix: str, panels: int) -> None:
    for number in range(6):
        strip = Image.new("RGB", (SIDE * panels, SIDE))
        for panel in range(panels):
            strip.paste(picture(100 * (panels - 1 - panel) + number + 50), (panel * SIDE, 0))
        path = (folder / entry(number)["image_path"]).with_suffix(suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        strip.save(path, lossless=True)  # a word to WebP; PNG never loses


@pytest.mark.parametrize(("inner", "suffix"), [("", ".png"), ("annotation_images", ".webp")])
def test_a_folder_of_strips_scores_as_its_last_panels(data: Path, tmp_path: Path, inner: str, suffix: str) -> None:
    write_edits(tmp_path / "plain", ".png", panels=1)
    write_edits(tmp_path / "strips" / inner, suffix, panels=4)
    for label in ("plain", "strips"):
        args = Arguments(data=data, out=tmp_path / "out", images=tmp_path / label, label=label)
        assert evaluate(args, TINY)
    one, other = (rows(tmp_path / "out", label) for label in ("plain", "strips"))
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))
    assert (one["mse"] > 0).all()


def test_what_is_wrong_with_finished_edits_is_told_at_once(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "edits"
    write_edits(folder, ".png", panels=1)
    files = [folder / entry(number)["image_path"] for number in range(6)]
    files[0].unlink()
    picture(1, SIDE + 1).save(files[1])
    files[2].write_bytes(b"no image")
    picture(3).save(files[3].with_suffix(".jpg"))
    args = Arguments(data=data, out=tmp_path / "out", images=folder, label="mine")
    with pytest.raises(DatasetError) as caught:
        evaluate(args, TINY)
    assert [fault.record for fault in caught.value.faults] == [f"{number:012d}" for number in range(4)]
    assert not (tmp_path / "out").exists()

    with pytest.raises(DatasetError):
        evaluate(Arguments(**{**vars(args), "limit": 1}), TINY)
    assert evaluate(Arguments(**{**vars(args), "allow_partial": True}), TINY)
    assert rows(tmp_path / "out", "mine")["status"].tolist() == ["failed"] * 4 + ["done"] * 2


def test_a_folder_that_gains_images_is_scored_on_and_one_that_changes_is_refused(data: Path, tmp_path: Path) -> None:
    folder, whole = tmp_path / "edits", tmp_path / "whole"
    write_edits(folder, ".png", panels=1)
    shutil.copytree(folder, whole)
    late = [folder / entry(number)["image_path"] for number in (0, 4)]
    for path in late:
        path.unlink()
    args = Arguments(data=data, out=tmp_path / "out", images=folder, label="mine", allow_partial=True)
    assert evaluate(args, TINY)
    first = rows(args.out, "mine")
    assert first["status"].tolist() == ["failed", *["done"] * 3, "failed", "done"]

    for path in late:
        shutil.copy(whole / path.relative_to(folder), path)
    assert evaluate(replace(args, allow_partial=False), TINY)
    second = rows(args.out, "mine")
    assert second["status"].eq("done").all()
    assert second["seconds"][first["status"] == "done"].equals(first["seconds"][first["status"] == "done"])
    assert evaluate(Arguments(data=data, out=tmp_path / "at once", images=whole, label="mine"), TINY)
    drop = ["seconds"]
    pd.testing.assert_frame_equal(second.drop(columns=drop), rows(tmp_path / "at once", "mine").drop(columns=drop))
    ours, theirs = (out / "tiny" / "piebench" / "mine" / "manifest.json" for out in (args.out, tmp_path / "at once"))
    assert json.loads(ours.read_text())["fingerprint"] == json.loads(theirs.read_text())["fingerprint"]

    picture(999).save(folder / entry(2)["image_path"])
    with pytest.raises(RunError, match=r"of which 1 are gone or others now \(000000000002\); start with --fresh"):
        evaluate(args, TINY)


def test_records_without_masks_have_the_columns_that_need_none(tmp_path: Path) -> None:
    entries = write_piebench(tmp_path / "data", 4)
    ids = list(entries)
    entries[ids[0]]["mask"] = []
    entries[ids[1]]["mask"] = None
    del entries[ids[2]]["mask"]
    write_mapping(tmp_path / "data", entries)
    args = Arguments(data=tmp_path / "data", methods=("copy-source",), out=tmp_path / "out")
    files = evaluate(args, TINY)
    table = rows(args.out, "copy-source")
    for column in COLUMNS:
        without = column in ("psnr", "lpips", "mse", "ssim", "clip_edited")
        assert table[column].isna().tolist() == [without] * 3 + [column == "psnr"]
    assert json.loads(table["undefined"][ids[0]])["lpips"] == "the record has no mask"
    [page] = [path for path in files if path.name == "piebench.md"]
    assert "undefined for 3 samples: the record has no mask" in page.read_text()


def test_a_whole_data_set_without_masks_is_a_table_all_the_same(tmp_path: Path) -> None:
    entries = write_piebench(tmp_path / "data", 3)
    write_mapping(tmp_path / "data", {name: {**record, "mask": []} for name, record in entries.items()})
    args = Arguments(data=tmp_path / "data", methods=("copy-source",), out=tmp_path / "out")
    [page] = [path for path in evaluate(args, TINY) if path.name == "piebench.md"]
    assert "undefined for all 3 samples: the record has no mask" in page.read_text()


def test_prompts_that_are_cut_are_told_once_and_in_the_columns_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = write_piebench(tmp_path / "data", 3)
    entries["000000000001"]["editing_prompt"] = "a very " * 50 + "long prompt"
    write_mapping(tmp_path / "data", entries)
    args = Arguments(data=tmp_path / "data", methods=("copy-source",), out=tmp_path / "out")
    [page] = [path for path in evaluate(args, TINY) if path.name == "piebench.md"]
    assert capsys.readouterr().err.count("1 record (000000000001) are too long for tiny-clip") == 1
    assert "longer than the network reads are cut off, 1 (000000000001)." in page.read_text()


def test_the_official_layout_of_finished_edits(tmp_path: Path) -> None:
    suite = Suite(name="large", image_side=512, dataset=TINY.dataset, backbones=TINY.backbones)
    args = Arguments(data=PARITY, out=tmp_path, images=PARITY / "edited", label="parity")
    assert evaluate(args, suite)
    table = rows(tmp_path, "parity", "large")
    expected = json.loads((PARITY / "expected.json").read_text())
    assert table["mse"]["100000000000"] == pytest.approx(expected["100000000000"]["mse_unedit_part"], rel=1e-4)
    assert np.isnan(table["mse"]["100000000001"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "magic"], "there is no method 'magic'"),
        (["--methods", "copy-source", "copy-source"], "two rows are called 'copy-source'"),
        (["--methods", "external:gone.toml"], "gone.toml: no readable recipe"),
        (["--images", "gone", "--label", "x"], "gone is no folder"),
        (["--data", "gone"], "no such folder"),
        (["--data", "."], f"{SIDE}x{SIDE} pixels, not"),
    ],
)
def test_what_a_user_can_mend_is_told_in_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    side = SIDE if arguments == ["--data", "."] else SUITES["miniature"].image_side
    monkeypatch.chdir(tmp_path)
    write_piebench(tmp_path, 1, side)
    assert main(arguments if "--data" in arguments else [*arguments, "--data", "."]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "x"], "--label"),
        (["--label", "x"], "--images"),
        (["--images", "x", "--label", "../x"], "--label"),
        (["--limit", "0"], "--limit is 0"),
        (["--seed", "12345678901234567890"], "--seed is 12345678901234567890"),
        (["--batch-size", "-1"], "--batch-size is -1"),
        (["--shard", "2/2"], "--shard"),
        (["--fresh", "--shard", "0/2"], "--fresh"),
        (["--suite", "huge"], "huge"),
    ],
)
def test_faulty_flags_are_told_in_one_message(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_the_paper_suite_asks_for_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--suite", "paper"]) == 2
    assert "--data" in capsys.readouterr().err
