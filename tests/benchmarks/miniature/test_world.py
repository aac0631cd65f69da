"""The world: deterministic, with exact ground truth, and no held-out scene in training."""

import numpy as np
import pytest

from benchmarks.miniature.world.edits import KINDS, random_edit, training_edits
from benchmarks.miniature.world.render import CLASSES, condition, depth, render, segmentation
from benchmarks.miniature.world.scene import GRID, SIDE, VOCABULARY, Scene, Thing, caption, name, occupied, random_scene
from editar.prompts import TASKS, translation_prompt


def _edits(count: int, type_id: str | None = None):
    rng = np.random.default_rng(3)
    return [random_edit(rng, type_id) for _ in range(count)]


def test_pictures_and_maps_have_their_types_and_ranges():
    for edit in _edits(50):
        image = render(edit.target)
        assert image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8
        assert segmentation(edit.target).max() < len(CLASSES)
        assert depth(edit.target).dtype == np.uint8
    for task in TASKS:
        assert condition(edit.source, task).shape == (SIDE, SIDE, 3)


def test_equal_seeds_give_equal_scenes():
    first, second = (random_edit(np.random.default_rng(9)) for _ in range(2))
    assert first == second and np.array_equal(render(first.target), render(second.target))


def test_things_do_not_overlap_and_have_names_of_their_own():
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = random_scene(rng)
        assert occupied(scene.things).sum() == sum(thing.size**2 for thing in scene.things)
        assert len({name(thing) for thing in scene.things}) == len(scene.things)


@pytest.mark.parametrize("type_id", sorted(KINDS))
def test_the_mask_holds_every_changed_pixel_and_something_changes(type_id):
    for edit in _edits(40, type_id):
        changed = (render(edit.source) != render(edit.target)).any(-1)
        assert changed.any()
        assert not (changed & ~edit.mask()).any()
        assert edit.type_id == type_id


def test_pixels_outside_the_edited_thing_stay():
    for edit in _edits(60, "6"):
        rows, columns = edit.before.cells
        outside = np.ones((GRID, GRID), bool)
        outside[rows, columns] = False
        outside = outside.repeat(SIDE // GRID, 0).repeat(SIDE // GRID, 1)
        assert np.array_equal(render(edit.source)[outside], render(edit.target)[outside])


def test_the_vocabulary_knows_every_word():
    words = set(VOCABULARY)
    for edit in _edits(500):
        for text in (edit.instruction, *edit.prompts):
            assert set(text.split()) <= words
    for task in TASKS:
        prompt = translation_prompt(task, "a red disc").lower().replace(",", "").replace(":", "")
        assert set(prompt.split()) <= words


def test_training_never_sees_a_held_out_scene():
    stream = training_edits(0, 0)
    for _ in range(500):
        edit = next(stream)
        assert not edit.source.held_out and not edit.target.held_out
    shares = [random_scene(np.random.default_rng(i)).held_out for i in range(2000)]
    assert 0.04 < np.mean(shares) < 0.09


def test_a_caption_tells_all():
    disc = Thing(shape="disc", colour="red", material="striped", content="face", size=3, column=4, row=8)
    star = Thing(shape="star", colour="yellow", material="plain", content="none", size=3, column=0, row=6, flipped=True)
    scene = Scene(background="beach", things=(disc, star))
    assert caption(scene) == "a yellow star upside down and a red striped disc with a face on a beach"
