"""Two runs side by side: what the Markdown says of settings, of paired numbers, and of the samples that moved."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.datasets.piebench import read_piebench
from benchmarks.suites import SUITES
from benchmarks.tools.compare import main
from reports.runs import ReportError
from reports.tables.two_runs import compare
from tests.benchmarks.tiny import write_piebench

Write = Callable[..., Path]
Frame = Callable[[int, int], pd.DataFrame]


def line(text: str, start: str) -> list[str]:
    """The cells of the table row that begins with `start`."""
    (found,) = (row for row in text.splitlines() if row.startswith(f"| {start}"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_settings_are_told_field_by_field_and_versions_and_device_apart(write_run: Write) -> None:
    changes = {
        "seed": 3,
        "method_settings": {"sampling": {"guidance": 1.5}, "steps": 4},
        "packages": {"torch": "2.9"},
        "device": {"type": "cuda"},
        "wall_seconds": 99.0,
    }
    a = write_run("editar", manifest={"method_settings": {"sampling": {"guidance": 3.0}, "steps": 4}}, folder="a")
    text = compare(a, write_run("editar", manifest=changes, folder="b"))
    settings, versions, device = text.partition("\n\n## Samples")[0].split("\n\n")[-3:]
    assert line(settings, r"method\_settings.sampling.guidance")[1:] == ["3.0", "1.5"]
    assert line(settings, "seed")[1:] == ["0", "3"]
    assert "steps" not in settings and "wall" not in text
    assert line(versions, "packages.torch")[1:] == ["absent", '"2.9"']
    assert line(device, "device.type")[1:] == ["null", '"cuda"']


def test_numbers_are_paired_by_sample(write_run: Write, frame: Frame) -> None:
    """B is better by exactly 2 dB in each sample that both have, however much samples differ among each other."""
    first = frame(12, 0)
    second = first.assign(psnr=first["psnr"] + 2).iloc[2:]
    second.loc[second.index[0], "psnr"] = np.nan
    text = compare(write_run("a", samples=first), write_run("b", samples=second))
    assert line(text, "PSNR")[1] == "9" and line(text, "PSNR")[-3:] == ["2.00", "0.0625", "–"]
    assert line(text, "SSIM")[-3:] == ["0.00", "1.0000", "–"]
    assert "- done in both: 10" in text
    assert "- done in A only: 2: 000000000000, 000000000001" in text and "- done in B only: 0\n" in text
    assert "- images whose files differ: 0 of 10" in text


def test_the_better_run_is_the_one_that_the_test_favours(write_run: Write, frame: Frame) -> None:
    first = frame(140, 0)
    second = first.assign(psnr=first["psnr"] + np.linspace(1, 3, 140), mse=first["mse"] + np.linspace(-1, 1, 140))
    text = compare(write_run("a", samples=first, count=140), write_run("b", samples=second, count=140))
    assert line(text, "PSNR")[-3:] == ["2.00 [1.86, 2.14]", "0.0001", "B"] and line(text, "MSE")[-1] == "–"
    turned = compare(write_run("c", samples=second, count=140), write_run("d", samples=first, count=140))
    assert line(turned, "PSNR")[-3:] == ["-2.00 [-2.14, -1.86]", "0.0001", "A"] and "No interval for" in turned


def test_the_ten_samples_that_moved_most_are_shown_with_their_prompts(write_run: Write, frame: Frame) -> None:
    first = frame(12, 0)
    second = first.assign(lpips=first["lpips"] - np.arange(12) / 1000 * (-1) ** np.arange(12), image_sha256="f" * 64)
    a, b = write_run("a", samples=first), write_run("b", samples=second)
    text = compare(a, b, columns=["lpips", "mse"], prompts={"000000000011": "a | <b>cat</b>"})
    moved, mse = text.split("## Moved most: ")[1:]
    rows = [row for row in moved.splitlines() if row.startswith("| 0")]
    assert [int(row.split("|")[1]) for row in rows] == list(range(11, 1, -1))
    assert rows[0].endswith(r"| 11.00 | a \| &lt;b&gt;cat&lt;/b&gt; |") and rows[1].endswith("| -10.00 | – |")
    assert "No sample moved." in mse
    assert "- images whose files differ: 12 of 12" in text


def test_a_sample_that_failed_in_one_run_is_named(write_run: Write, frame: Frame) -> None:
    first = frame(4, 0)
    second = first.copy()
    second.loc[3, "status"] = "failed"
    text = compare(write_run("a", samples=first), write_run("b", samples=second), columns=["psnr"])
    assert "- done in A only: 1: 000000000003" in text


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"protocol": "pie-bench/v2"}, "protocol"), ({"dataset": {"digest": "0" * 64}}, "dataset.digest")],
)
def test_runs_of_other_data_or_protocol_are_compared_in_their_settings_alone(
    write_run: Write, changes: dict, field: str
) -> None:
    text = compare(write_run("a"), write_run("b", manifest=changes))
    assert f"The numbers can't be compared, because the runs differ in {field}." in text
    assert line(text, field) and "## Numbers" not in text


def test_a_column_of_another_network_is_left_out(write_run: Write) -> None:
    changes = {"scoring": {"backbones": {"clip": {"digest": "0" * 64}}}}
    text = compare(write_run("a"), write_run("b", manifest=changes))
    assert "of the same networks: CLIP whole, CLIP edited." in text and "| CLIP" not in text
    with pytest.raises(ReportError, match="--column clip_whole"):
        compare(write_run("c"), write_run("d", manifest=changes), columns=["clip_whole"])


def test_the_command(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, out = write_run("a"), write_run("b", seed=1), tmp_path / "out.md"
    assert main([str(a), str(b), "--column", "psnr", "ssim", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert text == out.read_text("utf-8") and text.count("## Moved most: ") == 2
    assert "The data set that has the prompts was not read: give it as --data DIR." in text
    assert main([str(a), str(tmp_path / "absent")]) == 2
    assert "absent is not a finished run: manifest.json is missing" in capsys.readouterr().err


@pytest.mark.parametrize("benchmark", ["piebench", "ablation-guidance"])
def test_prompts_come_from_the_runs_own_data_set(
    write_run: Write, frame: Frame, benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_piebench(tmp_path / "data", count=4, side=SUITES["miniature"].image_side)
    digest = read_piebench(tmp_path / "data", SUITES["miniature"].image_side).digest
    manifest = {"benchmark": benchmark, "dataset": {"digest": digest}}
    runs = [str(write_run(name, samples=frame(4, seed), manifest=manifest)) for seed, name in enumerate("ab")]
    assert main([*runs, "--data", str(tmp_path / "data")]) == 0
    assert "| make ball 2 blue |" in capsys.readouterr().out
    (tmp_path / "data" / "mapping_file.json").write_text(
        (tmp_path / "data" / "mapping_file.json").read_text().replace("make ball 2", "paint ball 2")
    )
    assert main([*runs, "--data", str(tmp_path / "data")]) == 2
    assert f"{tmp_path / 'data'} has " in capsys.readouterr().err
