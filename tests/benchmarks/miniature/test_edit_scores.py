"""The figures of edits: the true results, the sources and the restored pictures are scored as what they are."""

import json
from collections.abc import Sequence

import pytest
from PIL import Image, ImageFilter

from benchmarks.miniature.evaluate import __main__ as evaluate_editar
from benchmarks.miniature.evaluate.edit_scores import HeldOut, markdown

COUNTS = {"3": 3, "8": 2, "9": 2}


def _blur(images: Sequence[Image.Image]) -> list[Image.Image]:
    return [image.filter(ImageFilter.BoxBlur(1)) for image in images]


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    return HeldOut.draw(COUNTS, 5, _blur)


def test_the_true_results_are_without_error_and_the_sources_change_nothing(held_out):
    truth, copy = held_out.scores(held_out.truths), held_out.scores(held_out.sources)
    assert list(truth) == ["delete", "background", "style", "all"] and truth["all"]["n"] == 7
    for kind, row in truth.items():
        assert row["error"] == 0.0 < row["error_copy_source"] == copy[kind]["error"], kind
        assert row["followed"] == row["all_right"] == row["all_right_high"] == 1.0 > row["all_right_low"], kind
        assert copy[kind]["followed"] == copy[kind]["followed_low"] == 0.0, kind
    assert copy["delete"]["psnr"] == pytest.approx(78.1, abs=0.1)  # a square error of 1e-3 at least


def test_restored_pictures_reach_their_own_bounds(held_out):
    rows = held_out.scores(held_out.restored_truths)
    for kind, row in rows.items():
        assert row["error"] == row["error_reconstructed_truth"] > 0, kind
        for name in ("followed", "all_right"):
            assert row[name] == row[f"{name}_reconstructed_truth"], kind
    restored = held_out.scores(held_out.restored_sources)
    assert restored["delete"]["psnr"] == restored["delete"]["psnr_reconstruction"] < 40
    table = markdown(rows, "blur")
    assert "blur's floor" in table and len(table.splitlines()) == 2 + len(rows)


def test_the_committed_report_is_made_of_the_committed_figures():
    folder = evaluate_editar.Arguments().out
    results = json.loads((folder / "results.json").read_text())
    text = evaluate_editar.report(1.15, results["1.15"])
    assert text == (folder / "results.md").read_text()
