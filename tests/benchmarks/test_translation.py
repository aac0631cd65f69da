"""`benchmarks.translation` from data to table, with small scoring networks."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

from baselines import METHODS, TRANSLATORS
from benchmarks.datasets.faults import DatasetError
from benchmarks.datasets.translation import TASKS, TranslationDataset, read_translation
from benchmarks.datasets.translation_protocols import ALIGNED, PROTOCOLS
from benchmarks.runs.schema import RunError
from benchmarks.translation import Arguments, evaluate, main
from editar.io.digests import file_digest
from metrics.functional.segmentation import class_counts
from reports.runs import ReportError
from tests.benchmarks import standins
from tests.benchmarks.killable_translation import TINY
from tests.benchmarks.tiny import SIDE, picture
from tests.benchmarks.tiny_translation import write
from tests.sheets import tops

ROOT = Path(__file__).parents[2]
COUNT = 6
PROTOCOL = ALIGNED.variant(side=SIDE)

# Answers with the condition, mirrored. Where there is a file "kill", it ends the run at the fourth record.
ANSWER = """
import json, os, signal, sys
from pathlib import Path
from PIL import Image, ImageOps
folder = Path(sys.argv[1])
for line in (folder / "requests.jsonl").read_text().splitlines():
    request = json.loads(line)
    assert sorted(request) == ["caption", "image", "sample_id", "seed", "task"]
    if request["sample_id"].startswith("00003") and Path("kill").exists():
        Path("kill").unlink()
        os.kill(os.getppid(), signal.SIGKILL)
    ImageOps.mirror(Image.open(folder / request["image"])).save(folder / "answers" / (request["sample_id"] + ".png"))
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "answer.py").write_text(ANSWER)
    path = tmp_path / "recipe.toml"
    path.write_text(f'name = "mirror"\ncommand = {[sys.executable, "answer.py", "{folder}"]!r}\n')
    return f"external:{path}"


def read(data: Path, task: str) -> TranslationDataset:
    return read_translation(PROTOCOL.dataset(task), data, task)


def write_data(root: Path, task: str) -> Path:
    """Canny takes the images of the depth set."""
    return write(root / task, "depth" if task == "canny" else task, COUNT)


def write_images(folder: Path, images: list[Image.Image], suffix: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        image.save(folder / f"{number:05d}{suffix}.png")
    return folder


def real_images(data: Path, task: str) -> list[Image.Image]:
    dataset = read(data, task)
    return [PROTOCOL.image(dataset.row(record)) for record in dataset.records]


def arguments(task: str, data: Path, out: Path, **changes: Any) -> Arguments:
    return Arguments(task=task, data=data, out=out, **changes)  # type: ignore[arg-type]


def run_folder(out: Path, task: str, method: str) -> Path:
    return out / "tiny" / f"translation-{task}" / method


def rows(out: Path, task: str, method: str) -> pd.DataFrame:
    return pd.read_parquet(run_folder(out, task, method) / "samples.parquet").set_index("sample_id")


def fid_of(out: Path, task: str, method: str) -> dict[str, Any]:
    return json.loads((run_folder(out, task, method) / "fid.json").read_text())


def test_the_command_line_is_frozen() -> None:
    flags = {field.name for field in fields(Arguments)}
    assert flags == {
        "task", "protocol", "suite", "methods", "data", "weights", "out", "limit", "seed", "batch_size", "shard",
        "fresh", "allow_partial", "allow_mixed", "dry_run", "images", "label", "fid_reference", "kid", "threads",
        "images_at_once",
    }  # fmt: skip
    assert "editar" in TRANSLATORS


def test_every_flag_is_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for field in fields(Arguments):
        assert f"--{field.name.replace('_', '-')} " in text


@pytest.mark.parametrize("task", TASKS)
def test_from_data_to_table(task: str, tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_data(tmp_path, task), tmp_path / "out"
    args = arguments(task, data, out, methods=(recipe,), batch_size=4)
    written = evaluate(args, TINY)
    tables = {f"translation-{task}.{kind}" for kind in ("md", "tex", "csv", "html", "png")}
    assert {path.name for path in written} == tables | {
        "tables.tex", f"translation-{task}-cost.md", f"translation-{task}-cost.csv",
    }  # fmt: skip
    assert "| mirror |" in capsys.readouterr().out

    dataset, table = read(data, task), rows(out, task, "mirror")
    assert list(table.index) == [record.sample_id for record in dataset.records] and (table["status"] == "done").all()
    assert table["source_id"].tolist() == [record.image_sha256 for record in dataset.records]
    for record in dataset.records:
        made = np.asarray(Image.open(run_folder(out, task, "mirror") / "images" / f"{record.sample_id}.png"))
        assert np.array_equal(made[:, ::-1], np.asarray(PROTOCOL.condition(dataset.row(record))))
    fid = fid_of(out, task, "mirror")
    assert (fid["images"], fid["reference_images"], fid["dimension"]) == (COUNT, COUNT, 8)
    assert fid["fid"] > 0 and "6 images are fewer than the 8 features" in fid["draws"]["0"]["note"]

    stamps = {path: path.stat().st_mtime_ns for path in (out / "tiny").rglob("*.*")}
    assert evaluate(args, TINY) == written
    assert {path: path.stat().st_mtime_ns for path in (out / "tiny").rglob("*.*")} == stamps


def test_the_sheet_shows_condition_real_image_and_results(tmp_path: Path, recipe: str) -> None:
    data, out = write_data(tmp_path, "depth"), tmp_path / "out"
    folder = write_images(tmp_path / "some", [picture(50 + number) for number in range(COUNT)])
    args = arguments("depth", data, out, methods=(recipe,), images=folder, label="some", limit=4)
    sheet = next(path for path in evaluate(args, TINY) if path.suffix == ".png")
    assert sheet == out / "reports" / "tiny" / "translation-depth.png"
    dataset, places = read(data, "depth"), []
    for number, record in enumerate(dataset.records[:4]):
        condition = PROTOCOL.condition(dataset.row(record))
        shown = [condition, PROTOCOL.image(dataset.row(record)), ImageOps.mirror(condition), picture(50 + number)]
        found = {tuple(tops(Image.open(sheet), column, image)) for column, image in enumerate(shown)}
        assert len(found) == 1  # all four in one row
        places += [top for each in found for top in each]
    assert len(places) == 4 and places == sorted(places)
    first = sheet.read_bytes()
    sheet.unlink()
    evaluate(args, TINY)
    assert sheet.read_bytes() == first


def test_the_real_images_score_as_well_as_can_be(tmp_path: Path) -> None:
    data = write_data(tmp_path, "canny")
    folder = write_images(tmp_path / "real", real_images(data, "canny"))
    assert evaluate(arguments("canny", data, tmp_path / "out", images=folder, label="real"), TINY)
    table = rows(tmp_path / "out", "canny", "real")
    assert table["ssim"].to_numpy() == pytest.approx(1)
    assert table["f1"].dropna().to_numpy() == pytest.approx(1)
    assert table["ms_ssim"].isna().all() and all("ms_ssim" in json.loads(text) for text in table["undefined"])
    assert fid_of(tmp_path / "out", "canny", "real")["fid"] == pytest.approx(0, abs=1e-6)


def test_depth_is_measured_against_the_label(tmp_path: Path) -> None:
    data = write_data(tmp_path, "depth")
    images = [picture(50 + number) for number in range(COUNT)]
    folder = write_images(tmp_path / "some", images)
    for protocol in (ALIGNED.name, "translation/editar-released/v1"):
        out = tmp_path / protocol
        evaluate(arguments("depth", data, out, images=folder, label="some", protocol=protocol), TINY)
        label = PROTOCOLS[protocol].variant(side=SIDE).label
        dataset = read(data, "depth")
        for record, image in zip(dataset.records, images, strict=True):
            pixels = torch.from_numpy(np.asarray(image) / np.float32(255)).permute(2, 0, 1)[None]
            depth = standins.Depth("tiny-dpt", 0).depth(pixels)[None]
            own = torch.nn.functional.interpolate(depth, size=(SIDE, SIDE), mode="bicubic")[0, 0].double()
            want = torch.from_numpy(label(dataset.row(record))).double()
            scaled = [(each - each.min()) / (each.max() - each.min()) * 255 for each in (own, want)]
            rmse = (scaled[0] - scaled[1]).square().mean().sqrt().item()
            assert rows(out, "depth", "some")["depth_rmse"][record.sample_id] == pytest.approx(rmse, rel=1e-4)


def test_counts_of_images_add_up_to_those_of_one_pass(tmp_path: Path) -> None:
    data = write_data(tmp_path, "segmentation")
    images = [picture(50 + number) for number in range(COUNT)]
    folder = write_images(tmp_path / "some", images)
    evaluate(arguments("segmentation", data, tmp_path / "out", images=folder, label="some", batch_size=4), TINY)
    dataset = read(data, "segmentation")
    labels = np.stack([PROTOCOL.label(dataset.row(record)) for record in dataset.records])
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255
    predictions = standins.Segmentation("tiny-deeplab", 0).labels(pixels)
    expected = class_counts(predictions, torch.from_numpy(labels), 171).sum(0)
    total = torch.zeros(3, 171, dtype=torch.int64)
    for text in rows(tmp_path / "out", "segmentation", "some")["counts"]:
        for each, counts in json.loads(text).items():
            total[:, int(each)] += torch.tensor(counts)
    assert torch.equal(total, expected)
    printed = pd.read_csv(tmp_path / "out" / "reports" / "tiny" / "translation-segmentation.csv")
    measured = printed[(printed["method"] == "some") & printed["column"].str.startswith("mIoU")].iloc[0]
    both, predicted, labelled = expected.double()
    union = predicted + labelled - both
    assert measured["mean"] == pytest.approx(100 * (both / union)[union > 0].mean().item())
    assert measured["n"] == COUNT


def test_batch_size_and_shards_do_not_move_a_score(tmp_path: Path) -> None:
    data = write_data(tmp_path, "depth")
    folder = write_images(tmp_path / "some", [picture(50 + number) for number in range(COUNT)])
    evaluate(arguments("depth", data, tmp_path / "a", images=folder, label="some", batch_size=6), TINY)
    for index in (1, 0):
        shard = f"{index}/2"
        args = arguments("depth", data, tmp_path / "b", images=folder, label="some", batch_size=1, shard=shard)
        assert bool(evaluate(args, TINY)) == (index == 0)  # the last one takes FID and renders
    one, other = (rows(tmp_path / name, "depth", "some") for name in "ab")
    np.testing.assert_allclose(one["depth_rmse"], other["depth_rmse"], rtol=1e-5)
    assert fid_of(tmp_path / "a", "depth", "some") == fid_of(tmp_path / "b", "depth", "some")


def test_what_else_lies_in_the_folder_of_images_is_not_in_the_fid(tmp_path: Path) -> None:
    data, out = write_data(tmp_path, "depth"), tmp_path / "out"
    folder = write_images(tmp_path / "some", [picture(50 + number) for number in range(COUNT)])
    args = arguments("depth", data, out, images=folder, label="some")
    evaluate(args, TINY)
    before = fid_of(out, "depth", "some")
    inside = run_folder(out, "depth", "some") / "images"
    dataset = read(data, "depth")
    for record in dataset.records:
        PROTOCOL.condition(dataset.row(record)).save(inside / f"{record.sample_id}-depth.png")
    (run_folder(out, "depth", "some") / "fid.json").unlink()
    evaluate(args, TINY)
    assert fid_of(out, "depth", "some") == before


def test_what_operating_systems_leave_beside_finished_images_is_skipped_and_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path, "depth")
    folder = write_images(tmp_path / "some", [picture(50 + number) for number in range(COUNT)])
    evaluate(arguments("depth", data, tmp_path / "clean", images=folder, label="some"), TINY)
    assert "left beside" not in capsys.readouterr().err
    for name in ("._00000.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"no image")
    evaluate(arguments("depth", data, tmp_path / "out", images=folder, label="some"), TINY)
    said = capsys.readouterr().err
    assert said.count("left beside the files") == 1 and f"{folder}: " in said and "(4 in all)" in said
    assert fid_of(tmp_path / "out", "depth", "some") == fid_of(tmp_path / "clean", "depth", "some")


def test_another_image_than_was_made_gets_no_fid(tmp_path: Path) -> None:
    data, out = write_data(tmp_path, "depth"), tmp_path / "out"
    folder = write_images(tmp_path / "some", [picture(50 + number) for number in range(COUNT)])
    args = arguments("depth", data, out, images=folder, label="some")
    evaluate(args, TINY)
    before = fid_of(out, "depth", "some")
    (run_folder(out, "depth", "some") / "fid.json").unlink()
    changed = run_folder(out, "depth", "some") / "images" / "00002.png"
    made = changed.read_bytes()
    picture(99).save(changed)
    with pytest.raises(RunError, match="00002"):  # which this start doesn't look after
        evaluate(replace(args, limit=2), TINY)
    assert evaluate(args, TINY)
    assert fid_of(out, "depth", "some") == before and changed.read_bytes() == made


def test_a_larger_limit_takes_fid_anew(tmp_path: Path) -> None:
    data, out = write_data(tmp_path, "depth"), tmp_path / "out"
    folder = write_images(tmp_path / "some", [picture(50 + number) for number in range(COUNT)])
    for limit, images in ((1, 1), (4, 4), (2, 4), (None, COUNT)):
        assert evaluate(arguments("depth", data, out, images=folder, label="some", limit=limit), TINY)
        fid = fid_of(out, "depth", "some")
        assert (fid["images"], fid["reference_images"], fid["fid"] is None) == (images, COUNT, images == 1)
    assert evaluate(arguments("depth", data, out, images=folder, label="some", limit=2, fresh=True), TINY)
    assert fid_of(out, "depth", "some")["images"] == 2


def test_kid_is_a_column_more_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_data(tmp_path, "canny"), tmp_path / "out"
    folder = write_images(tmp_path / "some", [picture(50 + number) for number in range(COUNT)])
    given = arguments("canny", data, out, images=folder, label="some")
    assert evaluate(given, TINY)
    before = fid_of(out, "canny", "some")
    assert "kid" not in before and "KID" not in capsys.readouterr().out
    assert evaluate(replace(given, kid=True), TINY)
    fid, printed = fid_of(out, "canny", "some"), capsys.readouterr().out
    assert fid["fid"] == before["fid"] and fid["kid"] == fid["draws"]["0"]["kid"] != 0
    assert "KID" in printed and f"{1000 * fid['kid']:.2f}" in printed
    assert evaluate(given, TINY) and fid_of(out, "canny", "some") == fid  # what is known stays

    same = write_images(tmp_path / "real", real_images(data, "canny"))
    evaluate(arguments("canny", data, out, images=same, label="real", kid=True), TINY)
    assert fid_of(out, "canny", "real")["kid"] < fid["kid"]


def test_fid_against_published_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the real images themselves give the number that the images give."""
    data, out = write_data(tmp_path, "depth"), tmp_path / "out"
    folder = write_images(tmp_path / "some", [picture(50 + number) for number in range(COUNT)])
    given = arguments("depth", data, out, images=folder, label="some")
    evaluate(given, TINY)
    (cached,) = (out / "tiny" / "translation-references").glob("*.npz")
    with np.load(cached) as content:
        np.savez(tmp_path / "some_clean.npz", mu=content["mu"], sigma=content["sigma"])
    before = fid_of(out, "depth", "some")
    capsys.readouterr()
    assert evaluate(replace(given, fid_reference=str(tmp_path / "some_clean.npz")), TINY)
    fid = fid_of(out, "depth", "some")
    assert fid["fid"] == pytest.approx(before["fid"]) and "reference_images" not in fid
    assert (fid["reference_file"], fid["reference"]) == ("some_clean.npz", file_digest(tmp_path / "some_clean.npz"))
    assert r"against the file some\_clean.npz" in capsys.readouterr().out

    np.savez(tmp_path / "large.npz", mu=np.zeros(9), sigma=np.eye(9))
    with pytest.raises(ValueError, match="--fid-reference"):
        evaluate(replace(given, fid_reference=str(tmp_path / "large.npz"), out=tmp_path / "other"), TINY)
    assert not (tmp_path / "other" / "tiny" / "translation-depth").exists()  # before anything is made


@pytest.mark.parametrize("digests", [True, False])
def test_reference_images_that_were_replaced_are_made_again(
    digests: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the data set, whose digest the run's manifest has, and whether or not what says how they were is replaced
    too."""
    data, out = write_data(tmp_path, "canny"), tmp_path / "out"
    folder = write_images(tmp_path / "some", [picture(50 + number) for number in range(COUNT)])
    given = arguments("canny", data, out, images=folder, label="some")
    evaluate(given, TINY)
    before, fid_file = fid_of(out, "canny", "some"), run_folder(out, "canny", "some") / "fid.json"
    (real,) = (out / "tiny" / "translation-references").glob("canny-*")
    images = {path: path.read_bytes() for path in sorted(real.glob("*.png"))}
    first, second, *_ = images
    for path in (first, second):
        path.write_bytes((folder / "00003.png").read_bytes())
    if not digests:
        (real / "digests.json").write_text(json.dumps({path.stem: file_digest(path) for path in images}))
    fid_file.unlink()
    capsys.readouterr()
    evaluate(given, TINY)
    assert fid_of(out, "canny", "some") == before
    assert {path: path.read_bytes() for path in images} == images
    assert f"images in {real} were changed, and are made again" in capsys.readouterr().err


def test_four_images_a_prompt_are_four_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = write_data(tmp_path, "depth"), tmp_path / "four"
    for draw in range(4):
        write_images(folder, [picture(50 + 10 * draw + number) for number in range(COUNT)], f"-{draw}")
    options = {"protocol": "translation/controlnet++/v1", "label": "four"}
    assert evaluate(arguments("depth", data, tmp_path / "out", images=folder, limit=5, **options), TINY)
    table, fid = rows(tmp_path / "out", "depth", "four"), fid_of(tmp_path / "out", "depth", "four")
    assert len(table) == 20 and table["draw"].value_counts().to_dict() == dict.fromkeys("0123", 5)
    assert table["source_id"].nunique() == 5
    assert fid["fid"] == pytest.approx(np.mean([fid["draws"][draw]["fid"] for draw in "0123"]))
    assert [fid["draws"][draw]["images"] for draw in "0123"] == [5] * 4
    assert "means over the 4" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path, recipe: str) -> None:
    data, results = write_data(tmp_path, "segmentation"), []
    path = recipe.removeprefix("external:")
    for name, kills in (("killed", 1), ("whole", 0)):
        out = tmp_path / name
        command = [sys.executable, "-m", "tests.benchmarks.killable_translation", str(data), str(out), path]
        if kills:
            (tmp_path / "kill").touch()
            assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300).returncode == -9
            assert not (run_folder(out, "segmentation", "mirror") / "samples.parquet").exists()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        images = sorted((run_folder(out, "segmentation", "mirror") / "images").iterdir())
        table = rows(out, "segmentation", "mirror").drop(columns="seconds").to_csv()
        results.append((table, fid_of(out, "segmentation", "mirror"), [(p.name, p.read_bytes()) for p in images]))
    assert results[0] == results[1]


def test_a_failed_sample_is_stamped_on_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path, "depth")
    folder = write_images(tmp_path / "some", [picture(50 + number) for number in range(COUNT)])
    (folder / "00003.png").write_bytes(b"no image")
    args = arguments("depth", data, tmp_path / "out", images=folder, label="some")
    with pytest.raises(DatasetError, match="'00003'"):
        evaluate(args, TINY)
    assert evaluate(Arguments(**{**vars(args), "allow_partial": True}), TINY)
    assert "5/6" in capsys.readouterr().out
    assert fid_of(tmp_path / "out", "depth", "some")["images"] == 5


def test_a_table_of_an_unfinished_run_is_refused(tmp_path: Path, recipe: str) -> None:
    data = write_data(tmp_path, "depth")
    text = (
        (tmp_path / "answer.py")
        .read_text()
        .replace("    assert", "    if request['sample_id'] == '00001': continue\n    assert")
    )
    (tmp_path / "answer.py").write_text(text)
    with pytest.raises(ReportError, match="--allow-partial"):
        evaluate(arguments("depth", data, tmp_path / "out", methods=(recipe,)), TINY)
    assert rows(tmp_path / "out", "depth", "mirror")["status"].tolist() == ["done", "failed", *["done"] * 4]
    sheet = Image.open(tmp_path / "out" / "reports" / "tiny" / "translation-depth.png")  # of what there is
    dataset = read(data, "depth")
    made = [ImageOps.mirror(PROTOCOL.condition(dataset.row(record))) for record in dataset.records]
    assert [len(tops(sheet, 2, image)) for image in made] == [1, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "magic"], "there is no method 'magic'; --methods takes all, "),
        (["--methods", "copy-source"], "there is no method 'copy-source'"),
        (["--methods", "controlnet-plus-plus"], "ControlNet++ has no network for the task 'depth' in the suite"),
        (["--images", "gone", "--label", "x"], "gone is no folder"),
        (["--data", "gone"], "no such folder"),
        (["--task", "segmentation"], "'control_seg': it is missing"),
    ],
)
def test_what_a_user_can_mend_is_told_in_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    assert "copy-source" in METHODS
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "depth", 2)
    assert main(["--task", "depth", "--data", ".", *flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--task"),
        (["--task", "normals"], "normals"),
        (["--task", "depth", "--protocol", "translation/v0"], "--protocol is 'translation/v0'"),
        (["--task", "depth", "--images", "x"], "--label"),
        (["--task", "depth", "--fresh", "--shard", "0/2"], "--fresh"),
    ],
)
def test_faulty_flags_are_told_in_one_message(
    capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(flags)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
