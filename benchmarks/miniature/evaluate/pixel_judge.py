"""What the world knows of true results. Whether an instruction was followed, by pixels alone: no network judges, so
none can favour a row.

Everything that could stand in the place of the requested result is rendered, and the nearest rendering has to be the
true result. So the true result counts as followed and a copy of the source does not.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from baselines.method import EditRequest, MethodCard, MethodContext, NoAnswer, Requirements
from benchmarks.miniature.world.edits import KINDS, Edit
from benchmarks.miniature.world.embedded import COUNTS, held_out_edits, sample_ids, world_digest
from benchmarks.miniature.world.render import render
from benchmarks.miniature.world.scene import (
    BACKGROUNDS,
    COLOURS,
    CONTENTS,
    GRID,
    MATERIALS,
    SHAPES,
    STYLES,
    Scene,
    Thing,
    occupied,
    replace_thing,
)

VALUES = {"shape": SHAPES, "colour": COLOURS, "material": MATERIALS, "content": CONTENTS}


def alternatives(edit: Edit) -> list[Scene]:
    """The scenes that differ from the true result in nothing but what the instruction is about: source and true result
    are among them. A thing that is added could look in any way, one that moves could stand wherever its row is free."""
    if edit.kind == "background":
        return [replace(edit.source, background=background) for background in BACKGROUNDS]
    if edit.kind == "style":
        return [replace(edit.source, style=style) for style in STYLES]
    others = tuple(thing for thing in edit.source.things if thing != edit.before)
    things = [*_things(edit, others), edit.before, edit.after]
    return list(dict.fromkeys(replace(edit.source, things=(*others, *([thing] if thing else []))) for thing in things))


def _things(edit: Edit, others: tuple[Thing, ...]) -> list[Thing]:
    """What could stand in the place of the thing that the instruction is about."""
    if edit.kind == "delete":
        return []
    if edit.kind == "add":
        assert edit.after is not None
        looks = itertools.product(*VALUES.values(), (False, True))
        return [
            replace_thing(edit.after, **dict(zip(VALUES, values, strict=True)), flipped=flipped)
            for *values, flipped in looks
        ]
    assert edit.before is not None
    if edit.kind == "pose":
        taken = occupied(others)
        moved = [replace_thing(edit.before, column=column) for column in range(GRID - edit.before.size + 1)]
        flipped = replace_thing(edit.before, flipped=not edit.before.flipped)
        return [flipped, *(thing for thing in moved if not taken[thing.cells].any())]
    return [replace_thing(edit.before, **{edit.kind: value}) for value in VALUES[edit.kind]]


def neighbours(scene: Scene) -> list[Scene]:
    """The scenes that differ from `scene` in one thing being gone or in one attribute: of a thing, or of the whole."""
    found = [replace(scene, background=each) for each in BACKGROUNDS] + [replace(scene, style=each) for each in STYLES]
    for thing in scene.things:
        others = tuple(other for other in scene.things if other != thing)
        changed = [replace_thing(thing, **{name: value}) for name, values in VALUES.items() for value in values]
        changed.append(replace_thing(thing, flipped=not thing.flipped))
        found += [replace(scene, things=others), *(replace(scene, things=(*others, each)) for each in changed)]
    return found


def followed(image: np.ndarray, edit: Edit) -> bool:
    """Whether the true result of `edit` is the nearest of the alternatives to `image`, uint8 (64, 64, 3), by the sum of
    squared differences; alternatives that look like the true result are no others."""
    assert edit.kind in KINDS.values(), f"{edit.kind!r} is no kind of edit"
    return _nearest(image, edit.target, alternatives(edit))


def all_right(image: np.ndarray, edit: Edit) -> bool:
    """Whether the instruction was followed and nothing else has changed."""
    return followed(image, edit) and nothing_else_changed(image, edit)


def nothing_else_changed(image: np.ndarray, edit: Edit) -> bool:
    """Whether the true result is nearer than its neighbours."""
    return _nearest(image, edit.target, neighbours(edit.target))


def _nearest(image: np.ndarray, scene: Scene, others: Sequence[Scene]) -> bool:
    pixels = image.astype(np.int32)

    def distance(each: Scene) -> int:
        return int(np.square(pixels - render(each)).sum())

    return distance(scene) <= min(map(distance, others))


@cache
def embedded_edits() -> dict[str, Edit]:
    """The edits of the embedded PIE-Bench, by sample id."""
    edits = held_out_edits(COUNTS)
    return dict(zip(sample_ids(edits), edits, strict=True))


class PixelJudge:
    """`followed` for the records of the embedded PIE-Bench."""

    name = "miniature-pixels/v1"

    def followed(self, sample_id: str, image: np.ndarray) -> bool:
        return followed(image, embedded_edits()[sample_id])


class TrueResult:
    """The reference row of the embedded PIE-Bench's true results, which bounds every column."""

    card = MethodCard(kind="reference", note="the exact renderings that the instructions ask for, the ceiling")

    def __init__(self, context: MethodContext) -> None:
        pass

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image | NoAnswer]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: EditRequest) -> Image.Image | NoAnswer:
        edit = embedded_edits().get(request.sample_id)
        if edit is None or not np.array_equal(np.asarray(request.image), render(edit.source)):
            return NoAnswer("not a record of the embedded PIE-Bench: its true result is not known")
        return Image.fromarray(render(edit.target))

    def settings(self) -> dict[str, Any]:
        return {"world": world_digest()}

    def requirements(self) -> Requirements:
        return Requirements(note="no network")
