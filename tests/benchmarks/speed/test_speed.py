"""The speed benchmarks without their full-size networks: workload, deviations, shares, reports and command line."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.speed.__main__ import main
from benchmarks.speed.fid import AHEAD, IN_TURN, NETWORK, FidSpeed, measure, write_images
from benchmarks.speed.fid import report as report_fid
from benchmarks.speed.measure import SpeedSettings, ensure_weights, report_speed
from benchmarks.speed.metrics import RELEASED, deviations, make_workload, report
from metrics.protocols.pie_bench import PIE_BENCH_COLUMNS


def test_the_workload_leaves_nothing_to_skip() -> None:
    """No mask is full, no background identical, no image there twice: shortcuts of the scorer don't help it."""
    work = make_workload(images=2, methods=3, seed=0, side=64)
    assert len(work.edited) == 3 and len(work.prompts) == 2
    assert not work.masks.flatten(1).all(1).any()
    images = torch.cat([work.sources, *work.edited.values()])
    assert torch.equal(images, (images * 255).round() / 255) and images.min() >= 0 and images.max() <= 1
    assert len(torch.unique(images.flatten(1), dim=0)) == 2 * 4
    for edited in work.edited.values():
        changed = (edited != work.sources) & ~work.masks
        assert changed.flatten(1).any(1).all()


def test_the_workload_comes_from_its_seed() -> None:
    first, again, other = (make_workload(images=1, methods=1, seed=seed, side=32) for seed in (0, 0, 1))
    assert torch.equal(first.sources, again.sources) and not torch.equal(first.sources, other.sources)


def rows(*values: float) -> dict[str, list[dict[str, float]]]:
    return {"a": [dict.fromkeys(PIE_BENCH_COLUMNS, value) for value in values]}


def test_deviations_are_per_image_and_of_the_mean() -> None:
    result = deviations(rows(1.0, 3.0), rows(1.5, 2.7))["psnr"]
    assert result["largest"] == pytest.approx(0.5)
    assert result["of_the_mean"] == pytest.approx(0.1)
    assert result["largest_relative"] == pytest.approx(0.25)
    assert result["of_the_mean_relative"] == pytest.approx(0.05)


def test_the_report_shows_rates_ratios_and_deviations() -> None:
    figures = {
        "settings": {"images": 2, "methods": 3, "rounds": 1, "threads": 2},
        "images_methods_per_second": {RELEASED: 0.125, "ours, float32": 0.5},
        "ratio": {RELEASED: 1.0, "ours, float32": 4.0},
        "deviation": {"ours from theirs": deviations(rows(1.0), rows(1.5))},
    }
    lines = report(figures).splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["released", "evaluator", "8.00", "0.125", "1.00"],
        ["ours,", "float32", "2.00", "0.500", "4.00"],
    ]
    assert lines[-1].split() == ["clip_edited", "5.000e-01", "5.0e-01", "5.000e-01", "5.0e-01"]


class SmallFeatures:
    """The mean of each channel; counts the images."""

    name, official, digest, dimension, batch, device = "small", False, "0" * 64, 3, 4, "cpu"
    images = 0

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image, dtype=np.float32).transpose(2, 0, 1)

    def features(self, prepared: Tensor) -> Tensor:
        self.images += len(prepared)
        return prepared.mean((2, 3))


def test_the_fid_benchmark_does_the_same_work_in_three_ways(tmp_path: Path) -> None:
    files, network = write_images(tmp_path, 6, seed=0, side=16), SmallFeatures()
    assert len({path.read_bytes() for path in files}) == 6
    settings = FidSpeed(rounds=2)
    figures = measure(settings, network, files)
    assert network.images == 6 * 3 * (1 + 2)
    assert list(figures["ratio"]) == [IN_TURN, AHEAD, NETWORK]
    assert figures["ratio"][IN_TURN] == figures["network_alone_of_wall"][NETWORK] == 1
    for way in (IN_TURN, AHEAD, NETWORK):
        assert len(figures["seconds"][way]) == 2
        assert 0 < figures["inside_the_network"][way] < 1
    lines = report_fid({"settings": asdict(settings), **figures}).splitlines()
    assert len(lines) == 5 and lines[2].startswith(IN_TURN) and lines[2].endswith("1.00")


def test_a_measurement_makes_its_weights_once_and_writes_what_it_ran_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SpeedSettings(out=tmp_path / "new" / "figures.json", threads=torch.get_num_threads())
    weights = tmp_path / "weights"

    def write(folder: Path) -> Path:
        assert folder.is_dir()
        (folder / "made").touch()
        return folder

    for _ in range(2):  # a second writing would fail, and no half-written folder stays
        assert [path.name for path in ensure_weights(weights, write).iterdir()] == ["made"]
        report_speed(settings, lambda: {"ratio": 2.0}, lambda figures: f"ratio {figures['ratio']}")
        assert "ratio 2.0" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "weights"]
    assert settings.out is not None
    figures = json.loads(settings.out.read_text())
    assert figures["ratio"] == 2.0 and figures["settings"]["threads"] == settings.threads
    assert figures["machine"]["torch"] == torch.__version__


@pytest.mark.parametrize("command", ["metrics", "fid"])
def test_the_command_line_names_its_subcommands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--weights" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["nothing"])
    assert stop.value.code != 0
