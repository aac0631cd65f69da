"""Galleries and figures from run directories and the data sets that they were made of."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.datasets.hub import MULTIGEN_DEPTH
from benchmarks.datasets.piebench import read_piebench
from benchmarks.datasets.translation import read_translation
from benchmarks.datasets.translation_protocols import ALIGNED
from benchmarks.miniature.world.scene import SIDE
from benchmarks.tools import figure, gallery
from reports.sheets.figure import GAP, LARGEST_SIDE
from tests.benchmarks import tiny, tiny_translation
from tests.reports.conftest import merged
from tests.reports.gallery_runs import DEPTH, depth_frame, picture, write_run

METHODS = {"editar": 2, "masactrl": 3}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    tiny.write_piebench(tmp_path / "data", count=4, side=SIDE)
    return tmp_path / "data"


@pytest.fixture
def runs(data: Path, tmp_path: Path) -> Path:
    manifest = {"dataset": {"digest": read_piebench(data, SIDE).digest}}
    for name, seed in METHODS.items():
        write_run(tmp_path / "runs", name, count=4, seed=seed, side=SIDE, manifest=manifest)
    return tmp_path / "runs"


@pytest.fixture
def translations(tmp_path: Path) -> tuple[Path, Path]:
    """Run directories, and their data set."""
    data = tiny_translation.write(tmp_path / "depth-data", "depth", count=3)
    digest = read_translation(MULTIGEN_DEPTH, data, "depth").digest
    manifest = merged(
        DEPTH, {"scoring": {"options": asdict(ALIGNED.variant(side=SIDE))}, "dataset": {"digest": digest}}
    )
    write_run(tmp_path / "depth", "controlnet", count=3, side=SIDE, frame=depth_frame(3), manifest=manifest)
    return tmp_path / "depth", data


def test_runs_without_a_page_are_left_out_and_named(
    runs: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_run(tmp_path / "other", "none-seed-0", count=2, manifest={"benchmark": "another"})
    assert gallery.main([str(runs), str(other), "--data", str(data), "--out", str(tmp_path / "out")]) == 0
    assert "left out: the runs of another, which" in capsys.readouterr().err
    assert "none-seed-0" not in (tmp_path / "out" / "index.html").read_text("utf-8")
    assert gallery.main([str(other), "--data", str(data), "--out", str(tmp_path / "none")]) == 2
    assert "is of the benchmark 'another'; there are reports of piebench" in capsys.readouterr().err


def test_one_page_of_two_benchmarks_each_with_its_own_data(
    runs: Path, data: Path, translations: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert (
        gallery.main([str(runs), str(translations[0]), "--data", str(translations[1]), str(data), "--out", str(out)])
        == 0
    )
    text = (out / "index.html").read_text("utf-8")
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    edits, depth = json.loads(found[1])["groups"]
    assert edits["labels"][0] == "instruction" and edits["texts"][0][1] == "make ball 1 blue"
    assert depth["labels"] == ["caption"] and depth["texts"][0] == ["picture 0", "picture 1", "picture 2"]
    assert [each["title"] for each in depth["inputs"]] == ["condition", "real image"] and depth["mask"] is None
    with Image.open(
        out / "gallery-files" / "miniature-piebench" / "full" / "input-source" / f"{1:012d}.webp"
    ) as source:
        assert np.array_equal(np.asarray(source.convert("RGB")), np.asarray(tiny.picture(1, SIDE)))
    with Image.open(out / "gallery-files" / "miniature-piebench" / "full" / "input-mask" / f"{1:012d}.webp") as mask:
        tinted = np.asarray(mask)[:, :, 3] > 0
    assert tinted.sum() == 2 * SIDE // 2 * 8**2 and not tinted[0].any()  # without the frame that is always edited


def test_runs_of_other_data_are_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_piebench(tmp_path / "other", count=5, side=SIDE)
    assert gallery.main([str(runs), "--data", str(tmp_path / "other"), "--out", str(tmp_path / "out")]) == 2
    assert "was made of the data set" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_figure_of_chosen_samples_as_png_and_pdf(runs: Path, data: Path, tmp_path: Path) -> None:
    arguments = [str(runs), "--ids", f"{2:012d}", f"{0:012d}", "--methods", "masactrl", "editar", "--data", str(data)]
    files = []
    for name in ("one.pdf", "two"):
        assert figure.main([*arguments, "--out", str(tmp_path / name)]) == 0
        files.append([tmp_path / f"{name[:3]}{suffix}" for suffix in (".png", ".pdf")])
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    sheet = np.asarray(Image.open(files[0][0]))
    wanted = [
        [tiny.picture(2, SIDE), picture(3002, SIDE), picture(2002, SIDE)],
        [tiny.picture(0, SIDE), picture(3000, SIDE), picture(2000, SIDE)],
    ]
    places = [[places_in(sheet, column, each) for column, each in enumerate(row)] for row in wanted]
    assert all(len(found) == 1 and found == row[0] for row in places for found in row)
    assert places[0][0] < places[1][0]
    pdf = files[0][1].read_bytes()
    assert pdf.startswith(b"%PDF-") and pdf.count(b"/Subtype /Image") == 6 and b"Aileron" in pdf


def places_in(sheet: np.ndarray, column: int, wanted: Image.Image) -> list[int]:
    """Where in a column of the figure the picture stands, enlarged to 256 pixels."""
    pixels = np.asarray(wanted.resize((256, 256), Image.Resampling.NEAREST))
    left = round((GAP + column * (LARGEST_SIDE + GAP)) * 256 / LARGEST_SIDE)
    strip = sheet[:, left : left + 256]
    return [top for top in range(len(strip) - 255) if np.array_equal(strip[top : top + 256], pixels)]


@pytest.mark.parametrize(
    ("flags", "message"), [(["--ids", "7"], "no '7'"), (["--ids", f"{1:012d}", "--methods", "x"], "no 'x'")]
)
def test_what_no_run_has_is_named(
    flags: list[str], message: str, runs: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert figure.main([str(runs), *flags, "--data", str(data), "--out", str(tmp_path / "f")]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.glob("f.*"))
