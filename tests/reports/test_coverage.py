"""Intervals cover what they say wherever tables give one, and tests err as often as their level says."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from reports.coverage import (
    CLUSTERS,
    LARGEST,
    LEVELS,
    LOWEST,
    MAPS,
    NO_DIFFERENCE,
    SCORES,
    coverage,
    main,
    mean_iou_coverage,
    rejections,
)
from reports.tables.statistics import FEWEST, FEWEST_MEAN_IOU

PAGE = Path(__file__).parents[2] / "reports" / "coverage.md"


def test_a_few_trials_cover_and_scores_of_one_image_taken_for_independent_ones_do_not() -> None:
    covered, given = coverage("mse", FEWEST, 5, 200)
    assert given == 1 and covered > LOWEST - 0.05  # three standard errors of so few trials
    assert coverage("normal", 4, 1, 200)[0] > 0.9  # Student's holds at any number of normal values
    assert rejections("normal", 4, 1, 50) == (0, 0)  # all alike is 1 in 8
    assert rejections("normal", 14, 5, 200)[0] < 0.12


def test_the_mean_of_each_distribution_is_the_true_one() -> None:
    for scores in (*SCORES.values(), *NO_DIFFERENCE.values()):
        values, _ = scores.draw(np.random.default_rng(0), 400_000, 1)
        assert values.mean() == pytest.approx(scores.mean, abs=4 * values.std() / np.sqrt(len(values)))


def test_the_committed_page_has_every_cell_and_none_in_print_is_below() -> None:
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [line for line in lines if line[0].isdigit()]
    assert len(cells) == 2 * len(CLUSTERS) * len(LARGEST)
    covered, rejected = cells[: len(cells) // 2], cells[len(cells) // 2 :]
    for (clusters, _), line in zip(product(CLUSTERS, LARGEST), covered, strict=True):
        for scores, text in zip(SCORES.values(), line[2:], strict=True):
            assert text.startswith("(") == (clusters < scores.fewest), line
            assert text.startswith("(") or float(text) >= 100 * LOWEST, line
    [ious] = [line[1:] for line in lines if line[0] == "mIoU"]
    for images, text in zip(MAPS, ious, strict=True):
        assert text.startswith("(") == (images < FEWEST_MEAN_IOU)
        assert text.startswith("(") or float(text) >= 100 * LOWEST
    for line in rejected:
        for text in line[2:-1]:  # the last column's scores are not exchangeable
            for share, level in zip(map(float, text.split(", ")), LEVELS, strict=True):
                assert share / 100 <= level + 4 * np.sqrt(level * (1 - level) / 1000), line


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    assert main(["--trials", "4", "--out", str(tmp_path / "page.md")]) == 0
    heads = [line for line in (tmp_path / "page.md").read_text("utf-8").splitlines() if line.startswith(("#", "| so"))]
    assert heads == [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(("#", "| so"))]


@pytest.mark.slow
@pytest.mark.parametrize("largest", LARGEST)
@pytest.mark.parametrize("name", SCORES)
def test_intervals_cover_wherever_there_is_one(name: str, largest: int) -> None:
    fewest = SCORES[name].fewest
    for clusters, trials in ((fewest, 2000), (fewest + 2, 2000), (2 * fewest, 500)):
        covered, given = coverage(name, clusters, largest, trials)
        assert covered >= LOWEST, (clusters, covered, given)


@pytest.mark.slow
def test_intervals_of_mean_iou_cover_wherever_there_is_one() -> None:
    assert mean_iou_coverage(FEWEST_MEAN_IOU, 400) >= LOWEST


@pytest.mark.slow
@pytest.mark.parametrize("largest", LARGEST)
@pytest.mark.parametrize("name", ["normal", "mse", "yes"])
def test_tests_err_as_often_as_their_level_says(name: str, largest: int) -> None:
    for clusters in (4, 8, 14, 20, 62):
        trials = 2000
        for share, level in zip(rejections(name, clusters, largest, trials), LEVELS, strict=True):
            assert share <= level + 3 * np.sqrt(level * (1 - level) / trials), (clusters, share)
