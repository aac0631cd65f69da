"""The scorer: values, undefined values, batches, and what it computes once."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from metrics.networks.backbones import Backbones
from metrics.protocols.pie_bench import (
    BACKGROUND_COLUMNS,
    INFINITE_PSNR,
    NO_BACKGROUND,
    NO_EDITED_PART,
    NO_MASK,
    PIE_BENCH_COLUMNS,
    PieBenchScorer,
)
from tests.metrics.reading import reasons, values


def pixels(batch: int, seed: int, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, side, side), generator=generator).float() / 255


def half(batch: int, side: int = 32) -> Tensor:
    """Masks of the left half."""
    masks = torch.zeros(batch, 1, side, side, dtype=torch.bool)
    masks[..., : side // 2] = True
    return masks


def test_every_column_has_a_value_per_image(backbones: Backbones) -> None:
    edited = {"a": pixels(3, 1), "b": pixels(3, 2)}
    scores = PieBenchScorer(backbones).score(pixels(3, 0), half(3), ["x", "y", "z"], edited)
    assert list(scores) == ["a", "b"]
    for score in scores.values():
        assert all(tuple(each) == PIE_BENCH_COLUMNS for each in score)
        assert reasons(score) == [{}, {}, {}]
        assert len(score) == 3
        assert all(isinstance(value, float) and math.isfinite(value) for each in score for value in each.values())


def test_clip_similarity_is_floored_at_zero(backbones: Backbones) -> None:
    sources, edited = pixels(8, 0), pixels(8, 1)
    prompts = [f"prompt {i}" for i in range(8)]
    score = PieBenchScorer(backbones).score(sources, half(8), prompts, {"a": edited})["a"]
    cosines = (backbones.clip.image_embedding(edited) * backbones.clip.text_embedding(prompts)).sum(-1)
    assert (cosines < 0).any() and (cosines > 0).any()
    assert values(score, "clip_whole") == pytest.approx(cosines.clamp(min=0).tolist(), abs=1e-6)
    parts = (backbones.clip.image_embedding(edited * half(8)) * backbones.clip.text_embedding(prompts)).sum(-1)
    assert values(score, "clip_edited") == pytest.approx(parts.clamp(min=0).tolist(), abs=1e-6)


def test_a_batch_gives_what_its_images_give_alone(backbones: Backbones) -> None:
    sources, edited, masks = pixels(4, 0), pixels(4, 1), half(4)
    masks[1] = True
    masks[2] = False
    edited[3] = sources[3]
    prompts = ["a", "b", "c", "d"]
    scorer = PieBenchScorer(backbones)
    together = scorer.score(sources, masks, prompts, {"m": edited, "copy": sources})
    for i in range(4):
        part = slice(i, i + 1)
        alone = scorer.score(sources[part], masks[part], prompts[part], {"m": edited[part], "copy": sources[part]})
        for name in ("m", "copy"):
            assert reasons(alone[name]) == reasons(together[name])[part]
            for column in PIE_BENCH_COLUMNS:
                expected = values(together[name], column)[i]
                assert values(alone[name], column) == [expected and pytest.approx(expected, rel=1e-5)]


def test_a_mask_that_covers_everything_leaves_no_background(backbones: Backbones) -> None:
    masks = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    score = PieBenchScorer(backbones).score(pixels(1, 0), masks, ["x"], {"a": pixels(1, 1)})["a"]
    assert reasons(score) == [dict.fromkeys(BACKGROUND_COLUMNS, NO_BACKGROUND)]
    assert all(values(score, column) == [None] for column in BACKGROUND_COLUMNS)
    assert values(score, "clip_edited") == values(score, "clip_whole")


def test_an_empty_mask_leaves_no_edited_part(backbones: Backbones) -> None:
    score = PieBenchScorer(backbones).score(pixels(1, 0), ~half(1) & half(1), ["x"], {"a": pixels(1, 1)})["a"]
    assert reasons(score) == [{"clip_edited": NO_EDITED_PART}]
    assert values(score, "clip_edited") == [None]


def test_an_image_without_a_mask_has_the_columns_that_need_none(backbones: Backbones) -> None:
    masks = half(2)
    masks[1] = False
    arguments = (pixels(2, 0), masks, ["x", "y"], {"a": pixels(2, 1)})
    score = PieBenchScorer(backbones).score(*arguments, masked=[True, False])["a"]
    assert reasons(score) == [{}, dict.fromkeys((*BACKGROUND_COLUMNS, "clip_edited"), NO_MASK)]
    empty = PieBenchScorer(backbones).score(*arguments)["a"]
    for column in ("structure_distance", "clip_whole"):
        assert values(score, column) == values(empty, column)


def test_an_identical_background_has_no_finite_psnr(backbones: Backbones) -> None:
    sources, masks = pixels(1, 0), half(1)
    edited = torch.where(masks, pixels(1, 1), sources)
    score = PieBenchScorer(backbones).score(sources, masks, ["x"], {"a": edited})["a"]
    assert reasons(score) == [{"psnr": INFINITE_PSNR}]
    assert values(score, "psnr") == [None]
    assert values(score, "mse") == [0] and values(score, "lpips") == [0]
    assert values(score, "ssim") == [pytest.approx(1)]


def test_an_untouched_image_has_structure_distance_zero_and_needs_no_network(backbones: Backbones) -> None:
    sources = pixels(2, 0)
    score = PieBenchScorer(backbones).score(sources, half(2), ["x", "y"], {"copy": sources.clone()})["copy"]
    assert values(score, "structure_distance") == [0, 0]
    assert backbones.structure.images == 0  # type: ignore[attr-defined]


def test_what_depends_on_the_source_only_is_computed_once(backbones: Backbones) -> None:
    edited = {name: pixels(2, seed) for seed, name in enumerate("abc", start=1)}
    masks = half(2)
    masks[1] = True
    PieBenchScorer(backbones).score(pixels(2, 0), masks, ["x", "y"], edited)
    assert backbones.structure.images == 2 * (1 + 3)  # type: ignore[attr-defined]
    assert backbones.perceptual.images == 1 * (1 + 3)  # type: ignore[attr-defined]
    assert backbones.clip.texts == 2  # type: ignore[attr-defined]
    assert backbones.clip.images == 2 * 3 + 1 * 3  # type: ignore[attr-defined]


def test_bfloat16_is_near_float32_and_leaves_the_background_columns_alone(backbones: Backbones) -> None:
    arguments = (pixels(2, 0), half(2), ["x", "y"], {"a": pixels(2, 1)})
    full = PieBenchScorer(backbones).score(*arguments)["a"]
    half_precision = PieBenchScorer(backbones, precision="bfloat16").score(*arguments)["a"]
    for column in BACKGROUND_COLUMNS:
        assert values(half_precision, column) == values(full, column)
    for column in ("structure_distance", "clip_whole", "clip_edited"):
        assert values(half_precision, column) == pytest.approx(values(full, column), rel=0.05, abs=0.01)
    assert values(half_precision, "structure_distance") != values(full, "structure_distance")


def test_unfit_input_is_refused_with_its_name(backbones: Backbones) -> None:
    scorer = PieBenchScorer(backbones)
    good: dict[str, Any] = {
        "sources": pixels(1, 0),
        "masks": half(1),
        "target_prompts": ["x"],
        "edited": {"mine": pixels(1, 1)},
    }
    faults: dict[str, dict[str, Any]] = {
        "no method": {"edited": {}},
        r"2 prompts for 1 images": {"target_prompts": ["x", "y"]},
        r"masks .* must be": {"masks": half(1).float()},
        r"images of mine: \(1, 3, 16, 16\)": {"edited": {"mine": pixels(1, 1, side=16)}},
        r"images of mine: values .* \[0, 1\]": {"edited": {"mine": pixels(1, 1) * 255}},
        r"images of the sources: values nan": {"sources": pixels(1, 0) * torch.nan},
    }
    for message, change in faults.items():
        with pytest.raises(ValueError, match=message):
            scorer.score(**{**good, **change})


def test_scores_that_are_not_finite_are_an_error(backbones: Backbones) -> None:
    backbones.perceptual.weight.fill_(torch.nan)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="lpips of mine, image 0"):
        PieBenchScorer(backbones).score(pixels(1, 0), half(1), ["x"], {"mine": pixels(1, 1)})


def test_precision_must_fit_the_backbones(backbones: Backbones) -> None:
    with pytest.raises(ValueError):
        PieBenchScorer(backbones, precision="float16")
    built = Backbones(backbones.structure, backbones.perceptual, backbones.clip, precision="bfloat16")
    with pytest.raises(ValueError):
        PieBenchScorer(built)
