"""`python -m reports.coverage`: how often the intervals cover the true mean, and how often the tests find a difference
where there is none.

Scores are drawn from known distributions and go through the functions that make the tables. reports/coverage.md is what
this wrote; tests/reports/test_coverage.py runs a part of it.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import tyro
from scipy.special import ndtr, ndtri

from editar.io.atomic import write_text
from reports.tables.format import markdown_table
from reports.tables.mean_iou import mean_iou, mean_iou_interval
from reports.tables.significance import sign_flip_test
from reports.tables.statistics import FEWEST, FEWEST_MEAN_IOU, FEWEST_YES_NO, LEVEL, REPLICATES, mean_interval

CLUSTERS = (4, 8, 14, 20, 30, 60, 70, 140, 240, 700)
MAPS = (60, 70, 140, 240, 500)
LARGEST = (1, 5)  # values of a cluster: from 1 to these
MANY = 140  # clusters from which a quarter of the trials has to do
LOWEST = 0.93  # coverage without which no interval is given
LEVELS = (0.05, 0.05 / 10)  # of tests: of a single one, and of the first of ten by Holm


@dataclass(frozen=True, kw_only=True)
class Scores:
    """score: of two independent standard normal variables, in the order of the samples. mean: the true one. fewest:
    clusters from which tables have intervals of such scores."""

    title: str
    score: Callable[[np.ndarray, np.ndarray], np.ndarray]
    mean: float
    differences: bool = False
    fewest: int = FEWEST

    def draw(self, rng: np.random.Generator, clusters: int, largest: int) -> tuple[np.ndarray, np.ndarray]:
        """Values and their clusters, (n,) each; half of the variance is between clusters of more than one value."""
        groups = np.repeat(np.arange(clusters), rng.integers(1, largest, clusters, endpoint=True))
        between = rng.normal(size=(2, clusters))[:, groups]
        return self.score(*np.sqrt(0.5) * (between + rng.normal(size=between.shape))), groups


def _yes(share: float, z: np.ndarray) -> np.ndarray:
    return (z < ndtri(share)).astype(float)


CAP = 2.5  # of PSNR-like scores, in standard deviations
SCORES = {
    "normal": Scores(title="normal", score=lambda z, _: z, mean=0),
    "psnr": Scores(
        title="PSNR-like: normal, cut at 40 dB",
        score=lambda z, _: 25 + 6 * np.minimum(z, CAP),
        mean=25 + 6 * (CAP * ndtr(-CAP) - np.exp(-(CAP**2) / 2) / np.sqrt(2 * np.pi)),
    ),
    "ssim": Scores(
        title="SSIM-like: bounded by 1, skewed",
        score=lambda z, _: ndtr(1.5 + 1.5 * z),
        mean=float(ndtr(1.5 / np.sqrt(1 + 1.5**2))),
    ),
    "mse": Scores(title="MSE-like: lognormal", score=lambda z, _: np.exp(z), mean=float(np.exp(0.5))),
    "yes": Scores(title="yes or no: 80% yes", score=lambda z, _: _yes(0.8, z), mean=0.8, fewest=FEWEST_YES_NO),
    "mse_difference": Scores(
        title="difference of MSE, 0 for half",
        score=lambda z, other: np.where(other < 0, np.exp(z) - 0.5, 0),
        mean=float(np.exp(0.5) - 0.5) / 2,
        differences=True,
        fewest=MANY,  # where half of the differences are 0, mostly FEWEST others
    ),
    "yes_difference": Scores(
        title="difference of yes or no",
        score=lambda z, other: _yes(0.9, z) - _yes(0.8, other),
        mean=0.1,
        differences=True,
    ),
    "rare": Scores(title="yes or no: 3% yes", score=lambda z, _: _yes(0.03, z), mean=0.03, fewest=FEWEST_YES_NO),
}
NO_DIFFERENCE = {
    "normal": Scores(title="normal", score=lambda z, _: z, mean=0),
    "mse": Scores(title="MSE-like, exchangeable", score=lambda z, other: np.exp(z) - np.exp(other), mean=0),
    "yes": Scores(title="yes or no", score=lambda z, other: _yes(0.8, z) - _yes(0.8, other), mean=0),
    "skewed": Scores(title="skewed around 0, not exchangeable", score=lambda z, _: np.exp(z) - np.exp(0.5), mean=0),
}


def coverage(name: str, clusters: int, largest: int, trials: int) -> tuple[float, float]:
    """The share of intervals that cover the true mean, and the share of trials with an interval.

    name: of SCORES. Where tables give none, it is of the intervals that they would have given.
    """
    scores, rng = SCORES[name], np.random.default_rng([clusters, largest, list(SCORES).index(name)])
    covered, given = 0, 0
    for _ in range(trials):
        fewest = None if clusters >= scores.fewest else 2
        values, groups = scores.draw(rng, clusters, largest)
        found = mean_interval(values, groups, fewest=fewest, differences=scores.differences)
        if found.low is not None and found.high is not None:
            given += 1
            covered += found.low <= scores.mean <= found.high
    return covered / max(given, 1), given / trials


def draw_maps(rng: np.random.Generator, images: int) -> np.ndarray:
    """Pixels (images, 3, classes) as `mean_iou_interval` takes them: three classes of twelve in an image, found but for
    lognormal shares, and rarely another one where it is not."""
    shape = (images, 12)
    there, wrong = rng.random(shape) < 0.25, rng.random(shape) < 0.003
    label = there * rng.integers(100, 400, shape)
    missed, added = np.minimum(rng.lognormal(-3, 1, (2, *shape)), 1)
    both = np.round(label * (1 - missed))
    elsewhere = wrong * ~there * rng.integers(50, 1500, shape)
    return np.stack([both, both + np.round(label * added) + elsewhere, label], axis=1)


def mean_iou_coverage(clusters: int, trials: int) -> float:
    """The share of intervals that cover the mean IoU of 200 000 maps."""
    parts = (draw_maps(np.random.default_rng(part), 10_000).sum(0) for part in range(20))
    [true] = mean_iou(np.sum(list(parts), axis=0)[None])
    rng, covered = np.random.default_rng(clusters), 0
    for _ in range(trials):
        found = mean_iou_interval(draw_maps(rng, clusters), ["0"] * clusters, range(clusters), fewest=2)
        covered += found.low is not None and found.high is not None and bool(found.low <= true <= found.high)
    return covered / trials


def rejections(name: str, clusters: int, largest: int, trials: int) -> tuple[float, ...]:
    """The share of tests with a p-value of at most each of LEVELS, where there is no difference. name: of
    NO_DIFFERENCE."""
    scores, rng = NO_DIFFERENCE[name], np.random.default_rng([clusters, largest, list(NO_DIFFERENCE).index(name), 1])
    p = [sign_flip_test(*scores.draw(rng, clusters, largest)) or 0.0 for _ in range(trials)]
    return tuple(float(np.mean(np.array(p) <= level)) for level in LEVELS)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Example: python -m reports.coverage

    Simulate coverage and rejections, and write them as Markdown; about six minutes on one core.
    """

    trials: int = 4000
    """Of each cell; many clusters have a quarter."""
    out: Path = Path("reports/coverage.md")
    """Where to write."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    settings = tyro.cli(Settings, args=arguments, prog="python -m reports.coverage")
    with ProcessPoolExecutor() as pool:
        covered = _simulate(pool, coverage, SCORES, settings.trials)
        rejected = _simulate(pool, rejections, NO_DIFFERENCE, settings.trials)
        of_maps = pool.map(mean_iou_coverage, MAPS, [settings.trials // 4] * len(MAPS))
        ious = dict(zip(MAPS, of_maps, strict=True))
    write_text(settings.out, "\n".join(_page(covered, rejected, ious, settings.trials)))
    print(f"written: {settings.out}")
    return 0


Cells = dict[tuple[str, int, int], tuple[float, ...]]


def _simulate(
    pool: ProcessPoolExecutor,
    simulation: Callable[[str, int, int, int], tuple[float, ...]],
    names: Iterable[str],
    trials: int,
) -> Cells:
    cells = list(product(names, CLUSTERS, LARGEST))
    counts = [trials // 4 if clusters >= MANY else trials for _, clusters, _ in cells]
    return dict(zip(cells, pool.map(simulation, *zip(*cells, strict=True), counts), strict=True))


def _page(covered: Cells, rejected: Cells, ious: dict[int, float], trials: int) -> Iterator[str]:
    yield "# Coverage of the intervals, size of the tests\n"
    yield (
        f"Written by `python -m reports.coverage`: {trials} trials a cell, {trials // 4} from {MANY} source images "
        "on. Scores are drawn from known distributions and go through the functions that make the tables. Scores of "
        "one source image are correlated by 0.5.\n"
    )
    yield f"## Share of {LEVEL:.0%} intervals that cover the true mean, in %\n"
    rows = [
        [
            str(clusters),
            _sizes(largest),
            *(_covered(name, clusters, covered[name, clusters, largest]) for name in SCORES),
        ]
        for clusters, largest in product(CLUSTERS, LARGEST)
    ]
    yield _table(SCORES.values(), rows)
    yield (
        f"In parentheses: tables give no such interval. They need {FEWEST} source images, {FEWEST_YES_NO} for a mean "
        "of yes or no, and of a difference that many in which it is not 0. Intervals are the wider, on either side, of "
        f"bootstrap-t ({REPLICATES} replicates) and Student's; of means of yes or no, Korn and Graubard's. Other "
        "distributions may be covered less often: those whose mean is decided by one image in a hundred.\n"
    )
    yield "Mean IoU of maps whose classes hang on few images each:\n"
    texts = [_given(f"{100 * share:.1f}", clusters >= FEWEST_MEAN_IOU) for clusters, share in ious.items()]
    yield markdown_table(["source images", *map(str, ious)], [["mIoU", *texts]], numbers=range(1, len(ious) + 1)) + "\n"
    yield "## Share of tests that find a difference where there is none, in %\n"
    rows = [
        [str(clusters), _sizes(largest), *(_rejected(rejected[name, clusters, largest]) for name in NO_DIFFERENCE)]
        for clusters, largest in product(CLUSTERS, LARGEST)
    ]
    yield _table(NO_DIFFERENCE.values(), rows)
    yield (
        f"At the levels {' and '.join(f'{level:.1%}' for level in LEVELS)}, the second of which the first of ten tests "
        "has to reach after Holm's correction. Tests flip the signs of source images. The last column has a mean "
        "difference of 0, but scores that are not exchangeable: the test finds that, too.\n"
    )


def _sizes(largest: int) -> str:
    return "1" if largest == 1 else f"1 to {largest}"


def _table(scores: Iterable[Scores], rows: Sequence[Sequence[str]]) -> str:
    head = ["source images", "scores of one", *(each.title for each in scores)]
    return markdown_table(head, rows, numbers=range(len(head))) + "\n"


def _covered(name: str, clusters: int, cell: tuple[float, ...]) -> str:
    share, given = cell
    text = f"{100 * share:.1f}" if given else "–"
    return _given(text, clusters >= SCORES[name].fewest)


def _given(text: str, given: bool) -> str:
    return text if given else f"({text})"


def _rejected(cell: tuple[float, ...]) -> str:
    return ", ".join(f"{100 * share:.2f}" for share in cell)


if __name__ == "__main__":
    sys.exit(main())
