"""The judge that renders every alternative, and the row of true results."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from baselines.method import EditRequest, MethodContext, NoAnswer
from benchmarks.miniature.evaluate.pixel_judge import (
    PixelJudge,
    TrueResult,
    all_right,
    alternatives,
    embedded_edits,
    followed,
)
from benchmarks.miniature.world.edits import KINDS, Edit
from benchmarks.miniature.world.embedded import held_out_edits
from benchmarks.miniature.world.render import render

EDITS = held_out_edits(dict.fromkeys(KINDS, 3), seed=5)


@pytest.mark.parametrize("kind", sorted(set(KINDS.values()) - {"random"}))
def test_of_all_alternatives_the_true_result_alone_follows_the_instruction(kind: str) -> None:
    for edit in (edit for edit in EDITS if edit.kind == kind):
        scenes = alternatives(edit)
        assert edit.source in scenes and edit.target in scenes and len(set(scenes)) == len(scenes)
        truth = render(edit.target)
        assert followed(truth, edit)
        assert not followed(render(edit.source), edit)
        for scene in scenes[:: max(1, len(scenes) // 8)]:
            assert followed(render(scene), edit) == np.array_equal(render(scene), truth)


def test_a_blurred_and_noisy_result_still_follows() -> None:
    rng = np.random.default_rng(0)
    for edit in (edit for edit in EDITS if edit.kind in ("colour", "delete", "background")):
        noisy = render(edit.target) + rng.normal(0, 20, (64, 64, 3))
        assert followed(noisy.clip(0, 255).astype(np.uint8), edit)


def test_an_edit_that_changes_more_is_followed_and_not_all_right() -> None:
    found = 0
    for edit in (edit for edit in EDITS if edit.kind in ("background", "style") and edit.target.things):
        assert all_right(render(edit.target), edit) and not all_right(render(edit.source), edit)
        fewer = render(replace(edit.target, things=edit.target.things[1:]))
        found += followed(fewer, edit)
        assert not all_right(fewer, edit)
    assert found > 0


def test_the_right_change_of_the_wrong_thing_does_not_follow() -> None:
    def wrong(edit: Edit) -> np.ndarray | None:
        others = [thing for thing in edit.source.things if thing != edit.before]
        if edit.kind != "colour" or edit.after is None or not others:
            return None
        other = replace(others[0], colour=edit.after.colour)
        return render(replace(edit.source, things=tuple(other if t == others[0] else t for t in edit.source.things)))

    found = [(image, edit) for edit in embedded_edits().values() if (image := wrong(edit)) is not None]
    assert found and not any(followed(image, edit) for image, edit in found)


def request(sample_id: str, image: np.ndarray) -> EditRequest:
    return EditRequest(
        sample_id=sample_id, image=Image.fromarray(image), instruction="", source_prompt="", target_prompt="",
        blend_words=None, seed=0,
    )  # fmt: skip


def test_true_results_score_all_and_are_known_of_the_embedded_records_alone() -> None:
    method = TrueResult(MethodContext(suite="miniature", weights=None, device="cpu", image_side=64))
    some = dict(list(embedded_edits().items())[::9])
    answers = method.edit([request(name, render(edit.source)) for name, edit in some.items()])
    for name, answer in zip(some, answers, strict=True):
        assert isinstance(answer, Image.Image) and PixelJudge().followed(name, np.asarray(answer))
    first = next(iter(some))
    (other, unknown) = method.edit(
        [request(first, np.zeros((64, 64, 3), np.uint8)), request("999", np.asarray(answers[0]))]
    )
    assert isinstance(other, NoAnswer) and isinstance(unknown, NoAnswer)
