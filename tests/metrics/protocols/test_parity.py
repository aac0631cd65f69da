"""The official evaluator's values on two photographs, with full-size networks read from files in the official layout.

One set of files (2 GB, hash-filled) serves the whole module and is deleted after it.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from benchmarks.speed.released_evaluator import ReleasedEvaluator
from benchmarks.tools.random_weights import write_official_layout
from metrics.networks.official_backbones import official_backbones
from metrics.protocols.pie_bench import BACKGROUND_COLUMNS, NO_BACKGROUND, PIE_BENCH_COLUMNS, PieBenchScorer
from tests.metrics.reading import reasons, values

OFFICIAL_NAMES = {
    "structure_distance": "structure_distance",
    "psnr": "psnr_unedit_part",
    "lpips": "lpips_unedit_part",
    "mse": "mse_unedit_part",
    "ssim": "ssim_unedit_part",
    "clip_whole": "clip_similarity_target_image",
    "clip_edited": "clip_similarity_target_image_edit_part",
}


@pytest.fixture(scope="module")
def weights(hashfill: Callable[[Any], dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_official_layout(tmp_path_factory.mktemp("official"), hashfill)
    yield folder
    shutil.rmtree(folder)


def expected(photographs: Any, column: str, i: int) -> float:
    """In our units: the evaluator has CLIP on a scale of 100."""
    value = photographs.expected[photographs.ids[i]][OFFICIAL_NAMES[column]]
    return value / 100 if column.startswith("clip") else value


def score(weights: Path, photographs: Any, precision: str) -> Any:
    scorer = PieBenchScorer(official_backbones(weights, "cpu", precision), precision)
    edited = {"simulated": photographs.edited}
    return scorer.score(photographs.sources, photographs.masks, photographs.prompts, edited)["simulated"]


@pytest.mark.slow
def test_float32_equals_the_official_evaluator(weights: Path, photographs: Any) -> None:
    scores = score(weights, photographs, "float32")
    for column in OFFICIAL_NAMES:
        for i, value in enumerate(values(scores, column)):
            reference = expected(photographs, column, i)
            if math.isnan(reference):
                assert value is None
            else:
                assert value == pytest.approx(reference, rel=1e-4), (column, i)
    assert values(scores, "clip_edited")[0] == 0  # the floor
    assert reasons(scores) == [{}, dict.fromkeys(BACKGROUND_COLUMNS, NO_BACKGROUND)]


@pytest.mark.slow
def test_bfloat16_networks_stay_near_it(weights: Path, photographs: Any) -> None:
    scores = score(weights, photographs, "bfloat16")
    for column in ("structure_distance", "clip_whole", "clip_edited"):
        references = [expected(photographs, column, i) for i in range(2)]
        assert values(scores, column) == pytest.approx(references, rel=0.01), column
    for column in BACKGROUND_COLUMNS:
        assert values(scores, column)[0] == pytest.approx(expected(photographs, column, 0), rel=1e-4), column


@pytest.mark.slow
def test_networks_with_other_weights_do_not_pass_for_the_published_ones(weights: Path) -> None:
    """DINO's digest was never published, so its file is believed."""
    backbones = official_backbones(weights, "cpu", "bfloat16")
    assert backbones.precision == "bfloat16"
    for network, name in ((backbones.perceptual, "lpips-squeeze"), (backbones.clip, "clip-vit-large-patch14")):
        assert (network.official, network.name) == (False, f"{name}@{network.digest[:8]}")
    assert (backbones.structure.official, backbones.structure.name) == (True, "dino-vitb8")


@pytest.mark.slow
def test_the_opponent_of_the_speed_benchmark_is_the_official_evaluator(weights: Path, photographs: Any) -> None:
    def pixels(image: Tensor) -> Any:
        return (image * 255).round().byte().permute(1, 2, 0).numpy()

    mask = photographs.masks[0, 0].double().numpy()[:, :, np.newaxis].repeat(3, axis=2)
    source, edited = pixels(photographs.sources[0]), pixels(photographs.edited[0])
    row = ReleasedEvaluator(weights).score(source, edited, mask, photographs.prompts[0])
    assert set(row) == set(PIE_BENCH_COLUMNS)
    for column, value in row.items():
        reference = photographs.expected[photographs.ids[0]][OFFICIAL_NAMES[column]]
        assert value == pytest.approx(reference, rel=1e-4), column
