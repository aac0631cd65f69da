"""The committed tables against their committed summaries: planted changes are found and named, accepting ends them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from reports.drift import main
from reports.runs import ReportError, read_run, read_runs
from reports.summaries import same_numbers, summary_files, take

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "reports" / "miniature"


def check(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    capsys.readouterr()
    return main(["--folder", str(folder), *flags]), capsys.readouterr().out


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

    table, plot = folder / "piebench.csv", folder / "piebench-bars.pdf"
    number = str(pd.read_csv(table).query("method == 'editar'")["low"].iloc[1])
    table.write_text(table.read_text().replace(number, repr(float(number) * (1 + 1e-10))))
    plot.write_bytes(plot.read_bytes() + b"\n")
    assert table.read_bytes() != before[table]
    status, said = check(folder, capsys)
    assert status == 0, said  # what another processor may change is no drift

    page = folder / "piebench.md"
    row = next(line for line in page.read_text().splitlines() if line.startswith("| editar |"))
    page.write_text(page.read_text().replace(row, row.replace(" | 12 |", " | 13 |")))
    (folder / "piebench-bars.png").unlink()
    (folder / "piebench-old.csv").write_text("of a row that is gone\n")
    status, said = check(folder, capsys)
    assert status == 1
    for what in ("piebench.md", "13 -> 12", "piebench-bars.png", "is not committed", "piebench-old.csv", "no summary"):
        assert what in said
    assert said.count(str(folder)) == 3

    [path] = [path for path in summary_files(folder) if path.stem == "editar"]
    content = json.loads(path.read_text())
    content["samples"][3]["psnr"] += 0.5
    path.write_text(json.dumps(content))
    status, said = check(folder, capsys, "--write")
    assert status == 0
    assert f"{table}:" in said and f"{folder / 'tables.tex'}:" not in said
    assert any("Measured,editar" in line and "->" in line for line in said.splitlines())
    after = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after.keys() == before.keys()
    assert after[table] != before[table] and after[folder / "tables.tex"] == before[folder / "tables.tex"]


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
