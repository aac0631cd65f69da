"""The speed benchmark without its full-size networks: workload, deviations, report and command line."""

import pytest
import torch

from benchmarks.speed import main
from benchmarks.speed_metrics import RELEASED, deviations, make_workload, report
from metrics.pie_bench import PIE_BENCH_COLUMNS


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


def test_the_command_line_names_its_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["metrics", "--help"])
    assert stop.value.code == 0
    assert "--weights" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["nothing"])
    assert stop.value.code != 0
