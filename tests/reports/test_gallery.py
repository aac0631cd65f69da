"""The gallery's files: what becomes of pictures, masks and texts, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reports.__main__ import main
from reports.gallery.files import MASK_COLOUR, overlay
from reports.gallery.write import embedded_json, read_benchmark_runs, write_gallery
from reports.runs import ReportError
from tests.reports.gallery_runs import HOSTILE, picture, view_edit, write_run


def content(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_small_pictures_go_in_unchanged_and_large_ones_get_thumbnails(tmp_path: Path) -> None:
    for side in (32, 300):
        group = read_benchmark_runs([write_run(tmp_path / str(side), "editar", count=2, side=side)], view_edit)
        page = write_gallery([group], tmp_path / f"out{side}")
        files = page.parent / "gallery-files" / "miniature-piebench"
        with Image.open(files / "full" / "editar" / "000000000001.webp") as full:
            assert full.size == (side, side)
            exact = np.array_equal(np.asarray(full.convert("RGB")), np.asarray(picture(1, side)))
        assert exact == (side == 32)
        thumbnails = sorted(path.name for path in files.glob("small/editar/*"))
        assert thumbnails == ([] if side == 32 else ["000000000000.webp", "000000000001.webp"])
        assert content(page)["groups"][0]["small"] == (side == 300)
    with Image.open(files / "small" / "editar" / "000000000001.webp") as small:
        assert small.size == (256, 256)


def test_scores_are_those_of_the_tables_and_missing_ones_have_their_reason(tmp_path: Path) -> None:
    changes = {0: {"psnr": np.nan, "undefined": json.dumps({"psnr": "identical background"}), "lpips": 0.123456}}
    failed = {1: {"status": "failed", "error": "OutOfMemory: too little", "image_sha256": None}}
    run = write_run(tmp_path, "editar", count=3, changes=changes | failed)
    (run / "images" / "000000000002.png").write_bytes(b"something else")
    (group,) = content(write_gallery([read_benchmark_runs([run])], tmp_path / "out"))["groups"]
    psnr, lpips = (
        next(c for c, column in enumerate(group["columns"]) if column["key"] == key) for key in ("psnr", "lpips")
    )
    assert group["scores"][lpips][0][0] == 123.456 and group["scores"][psnr][0][0] is None
    assert group["columns"][lpips]["full"] == "LPIPS (miniature-perception) ×10³\u00a0↓"
    assert group["reasons"][group["undefined"][psnr][0]["0"]] == "identical background"
    assert group["reasons"][group["errors"][0]["1"]] == "OutOfMemory: too little"
    assert "isn't the image" in group["reasons"][group["errors"][0]["2"]]
    assert group["methods"][0]["note"] == "2/3 done" and group["inputs"] == [] and group["texts"] == []


def test_what_methods_say_of_their_images_is_there(tmp_path: Path) -> None:
    said = {"expressive instruction": HOSTILE}
    runs = [
        write_run(tmp_path, "editar", count=3),
        write_run(tmp_path, "mgie", count=3, changes={1: {"notes": json.dumps(said)}}),
    ]
    (group,) = content(write_gallery([read_benchmark_runs(runs)], tmp_path / "out"))["groups"]
    assert group["notes"] == [{}, {"1": said}]


def test_runs_of_one_method_are_told_apart_by_where_they_lie(tmp_path: Path) -> None:
    folders = ("guided/1/piebench", "guided/2/piebench", "plain/piebench")
    runs = [write_run(tmp_path / name, "editar", count=2) for name in folders]
    assert read_benchmark_runs([runs[1], runs[2], runs[2]]).labels == ["editar (guided)", "editar (plain)"]
    group = read_benchmark_runs([*runs, write_run(tmp_path, "copy-source", count=2)])
    assert group.labels == ["copy-source", "editar (guided/1)", "editar (guided/2)", "editar (plain/piebench)"]
    (written,) = content(write_gallery([group], tmp_path / "out"))["groups"]
    assert len({method["folder"] for method in written["methods"]}) == 4


def test_a_mask_is_tinted_and_outlined_within(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), bool)
    mask[16:48, 32:] = True
    pixels = np.asarray(overlay(mask))
    assert pixels.shape == (512, 512, 4)
    assert np.array_equal(pixels[..., 3] > 0, mask.repeat(8, 0).repeat(8, 1))
    assert (pixels[128:131, 256:, 3] == 255).all() and (pixels[140:370, 256:259, 3] == 255).all()
    assert (pixels[131:380, 260:, 3] < 255).all()  # nothing along the side of the picture
    assert (pixels[200, 300, :3] == MASK_COLOUR).all()


def test_texts_cannot_leave_the_data(tmp_path: Path) -> None:
    text = embedded_json({"prompt": HOSTILE})
    assert not set("<>&\u2028\u2029") & set(text) and json.loads(text) == {"prompt": HOSTILE}


def test_another_page_is_not_overwritten_and_an_older_gallery_is_replaced(tmp_path: Path) -> None:
    group = read_benchmark_runs([write_run(tmp_path, "editar", count=2)])
    out = tmp_path / "out"
    out.mkdir()
    (out / "index.html").write_text("my home page")
    with pytest.raises(ReportError):
        write_gallery([group], out)
    assert (out / "index.html").read_text() == "my home page"
    (out / "index.html").unlink()
    (out / "notes.txt").write_text("mine")
    write_gallery([group], out)
    stale = out / "gallery-files" / "miniature-piebench" / "full" / "editar" / "gone.webp"
    stale.write_bytes(b"")
    write_gallery([group], out)
    assert not stale.exists() and (out / "notes.txt").read_text() == "mine"


def test_ids_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, "editar", count=2, pictures=False, changes={0: {"sample_id": "../../x"}})
    with pytest.raises(ReportError):
        write_gallery([read_benchmark_runs([run])], tmp_path / "out")
    assert not list(tmp_path.rglob("*.webp"))


def test_groups_have_the_order_of_the_tables(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, name, count=2) for name in ("aardvark", "masactrl", "editar", "vq-reconstruction")]
    assert read_benchmark_runs(runs).labels == ["vq-reconstruction", "editar", "masactrl", "aardvark"]


def test_the_reports_command_makes_one_of_run_directories_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path, "editar", count=4)
    out = tmp_path / "gallery"
    assert main(["--runs", str(run), "--out", str(tmp_path / "tables"), "--gallery", str(out)]) == 0
    (group,) = content(out / "index.html")["groups"]
    assert group["ids"] == [f"{number:012d}" for number in range(4)] and not group["inputs"] and not group["texts"]
