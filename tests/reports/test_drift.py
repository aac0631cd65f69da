"""The committed tables against their committed summaries: planted changes are found and named, accepting ends them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from PIL import Image, ImageChops

from reports.committed import same_numbers, summary_files, take
from reports.drift import main
from reports.runs import ReportError, read_run, read_runs
from reports.tables.piebench import render

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "reports" / "miniature"


def check(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    capsys.readouterr()
    return main(["--folder", str(folder), *flags]), capsys.readouterr().out


@pytest.mark.slow  # `nox -s tables` does the same
def test_the_committed_tables_are_what_their_summaries_give(capsys: pytest.CaptureFixture[str]) -> None:
    """Plots too, whatever style of their own a user has set."""
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "lines.linewidth": 6}):
        status, said = check(COMMITTED, capsys)
    assert status == 0, said


def test_committed_summaries_are_small_and_name_no_machine() -> None:
    files = summary_files(COMMITTED)
    assert {path.parent.name for path in files} == {
        "piebench", "translation-depth", "translation-canny", "translation-segmentation",
        "ablation-guidance", "ablation-distillation",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in files) < 2.5e6
    for path in files:
        manifest = json.loads(path.read_text())["manifest"]
        assert not {"platform", "python", "git", "started", "sessions", "wall_seconds", "cost"} & set(manifest)
        assert set(manifest["device"]) == {"type"}
        assert not [line for line in path.read_text().splitlines() if '"/' in line]


def test_planted_changes_are_found_and_named(
    write_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tables"
    runs = [str(write_run(method, seed=seed)) for seed, method in enumerate(("copy-source", "editar"))]
    assert main(["--folder", str(folder), "--take", *runs]) == 0
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    plot = folder / "piebench-bars.png"
    change_pixels(plot, 1)
    assert plot.read_bytes() != before[plot]
    status, said = check(folder, capsys)
    assert status == 0, said  # what another processor may change is no drift
    change_pixels(plot, 100)
    (folder / "piebench.csv").unlink()  # not committed, so not compared
    status, said = check(folder, capsys)
    assert status == 1 and said.count(str(folder)) == 1 and "of the pixels differ" in said

    page = folder / "piebench.md"
    row = next(line for line in page.read_text().splitlines() if line.startswith("| editar |"))
    page.write_text(page.read_text().replace(row, row.replace(" | 12 |", " | 13 |")))
    plot.unlink()
    (folder / "piebench-old.md").write_text("of a row that is gone\n")
    status, said = check(folder, capsys)
    assert status == 1
    for what in ("piebench.md", "13 -> 12", "piebench-bars.png", "is not committed", "piebench-old.md", "no summary"):
        assert what in said
    assert said.count(str(folder)) == 3
    page.write_text(page.read_text() + "\n")
    assert "only committed: " in check(folder, capsys)[1]  # an empty line

    [path] = [path for path in summary_files(folder) if path.stem == "editar"]
    content = json.loads(path.read_text())
    content["samples"][3]["psnr"] += 0.5
    path.write_text(json.dumps(content))
    status, said = check(folder, capsys, "--write")
    assert status == 0
    assert f"{page}:" in said and f"{folder / 'piebench.html'}:" not in said
    assert any("| editar |" in line and "->" in line for line in said.splitlines())
    after = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after.keys() == before.keys()
    assert after[page] != before[page] and after[folder / "tables.tex"] == before[folder / "tables.tex"]
    assert main(["--folder", str(folder)]) == 0


def change_pixels(path: Path, side: int) -> None:
    """Inverts a square at the corner."""
    with Image.open(path) as image:
        image.load()
    square = (0, 0, side, side)
    image.paste(ImageChops.invert(image.convert("RGB").crop(square)), square)
    image.save(path)


@pytest.mark.slow
def test_a_plot_is_drawn_anew_only_with_its_table(write_run: Callable[..., Path], tmp_path: Path) -> None:
    """What another processor draws a pixel beside does not change a committed file; other numbers do."""
    runs = [write_run("editar"), write_run("masactrl", seed=1)]
    render(runs, tmp_path, plots=True)
    plot = tmp_path / "piebench-bars.png"
    change_pixels(plot, 1)
    drawn_elsewhere = plot.read_bytes()
    render(runs, tmp_path, plots=True)
    assert plot.read_bytes() == drawn_elsewhere
    render([runs[0], write_run("masactrl", seed=2, folder="again")], tmp_path, plots=True)
    assert plot.read_bytes() != drawn_elsewhere


def test_a_summary_is_the_run_that_it_was_taken_of(write_run: Callable[..., Path], tmp_path: Path) -> None:
    run = write_run("editar", seed=5)
    [summary] = take([run], tmp_path)
    text = summary.read_text()
    assert take([run], tmp_path) == [summary] and summary.read_text() == text
    assert same_numbers(read_run(run), read_run(summary))
    pair = read_runs([run], ["psnr"], ["source_id"]) + read_runs([summary], ["psnr"], ["source_id"])
    assert pair[0].samples["psnr"].tolist() == pair[1].samples["psnr"].tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no readable summary"),
        ('{"summary_version": 1}', "no readable summary"),
        ('{"summary_version": 2, "manifest": {}, "fid": null, "samples": []}', "summary_version 2"),
        ('{"summary_version": 1, "manifest": [], "fid": null, "samples": []}', "no readable summary"),
    ],
)
def test_summaries_that_cannot_be_read_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "editar.json"
    path.write_text(text)
    with pytest.raises(ReportError, match=message):
        read_run(path)


def test_unfinished_runs_and_names_of_other_folders_are_not_taken(
    write_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = write_run("editar", manifest={"counts": {"expected": 13}})
    outside = write_run("other", manifest={"method": "../../outside"})
    for run, message in ((unfinished, "12 of 13 samples are done"), (outside, "cannot be the name of a file")):
        assert main(["--folder", str(tmp_path / "tables"), "--take", str(run)]) == 1
        assert message in capsys.readouterr().err
    shutil.rmtree(tmp_path / "tables", ignore_errors=True)
    assert main(["--folder", str(tmp_path / "tables")]) == 1
    assert "no summaries in" in capsys.readouterr().err
