"""The ten PIE-Bench edit types as changes of a scene's parameters, with instruction, blend words and exact mask."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.miniature.world.render import render
from benchmarks.miniature.world.scene import (
    BACKGROUNDS,
    CELL,
    COLOURS,
    CONTENTS,
    FLIPPABLE,
    GRID,
    MATERIALS,
    PLACES,
    SHAPES,
    STYLES,
    Scene,
    Thing,
    article,
    caption,
    choose,
    describe,
    name,
    occupied,
    random_scene,
    random_thing,
    replace_thing,
)

KINDS = {
    "0": "random", "1": "shape", "2": "add", "3": "delete", "4": "content", "5": "pose", "6": "colour", "7": "material",
    "8": "background", "9": "style",
}  # fmt: skip
ADD_COLUMNS = {"on the left": 0, "in the middle": 3, "on the right": 5}


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One change: the scenes before and after, what was asked, and which thing it is about (None: the whole scene)."""

    type_id: str = ""
    kind: str = ""
    source: Scene
    target: Scene
    instruction: str
    blend_words: tuple[str, str] | None = None
    before: Thing | None = None
    after: Thing | None = None

    @property
    def held_out(self) -> bool:
        """Pairs with one held-out scene are held out; training uses none of them."""
        return self.source.held_out or self.target.held_out

    def mask(self) -> np.ndarray:
        """Edited pixels bool (64, 64): the cells that differ; for a background, all but the kept things."""
        changed = (render(self.source) != render(self.target)).any(-1)
        cells = changed.reshape(GRID, CELL, GRID, CELL).any((1, 3))
        if self.kind == "background":
            return changed
        return cells.repeat(CELL, 0).repeat(CELL, 1)

    @property
    def prompts(self) -> tuple[str, str]:
        """Source and target captions."""
        return caption(self.source), caption(self.target)


def random_edit(rng: np.random.Generator, type_id: str | None = None) -> Edit:
    """An edit of a random scene; `type_id` is PIE-Bench's ("0", random, draws one of the other nine)."""
    type_id = type_id or str(rng.integers(1, 10))
    kind = KINDS[type_id] if type_id != "0" else KINDS[str(rng.integers(1, 10))]
    while True:
        edit = _MAKERS[kind](rng, random_scene(rng, 2 if kind == "delete" and rng.random() < 0.6 else None))
        if edit is not None:
            return replace(edit, type_id=type_id, kind=kind)


def random_edit_of(rng: np.random.Generator, scene: Scene, types: str = "123456789") -> Edit:
    """An edit of `scene` of one of the type ids `types`, drawn uniformly among those that it allows."""
    while True:
        type_id = choose(rng, types)
        edit = _MAKERS[KINDS[type_id]](rng, scene)
        if edit is not None:
            return replace(edit, type_id=type_id, kind=KINDS[type_id])


def training_edits(seed: int, step: int) -> Iterator[Edit]:
    """Endless edits, none with a held-out scene; equal for equal (seed, step)."""
    rng = np.random.default_rng((seed, step % 2**32))
    while True:
        edit = random_edit(rng)
        if not edit.held_out:
            yield edit


def _swap(scene: Scene, before: Thing, after: Thing, instruction: str, blend: tuple[str, str]) -> Edit | None:
    """`before` becomes `after`; None where two things would then bear one name, or nothing would be seen to change."""
    others = [thing for thing in scene.things if thing != before]
    if any(name(thing) == name(after) for thing in others) or before == after:
        return None
    target = replace(scene, things=(*others, after))
    return Edit(source=scene, target=target, instruction=instruction, blend_words=blend, before=before, after=after)


# Attributes of a thing that an edit changes: their values, and phrases with places for its name and the new value.
_ATTRIBUTES = {
    "shape": (SHAPES, ("change the {name} to {new}", "replace the {name} with {new}")),
    "colour": (COLOURS, ("make the {name} {new}", "change the colour of the {name} to {new}")),
    "material": (MATERIALS, ("make the {name} {new}", "change the material of the {name} to {new}")),
}


def _attribute(rng, scene, attribute: str) -> Edit | None:
    options, phrases = _ATTRIBUTES[attribute]
    before = choose(rng, scene.things)
    old = getattr(before, attribute)
    new = choose(rng, options, old)
    after = replace_thing(before, **{attribute: new})
    text = choose(rng, phrases).format(name=name(before), new=article(new) if attribute == "shape" else new)
    return _swap(scene, before, after, text, (old, new) if attribute == "colour" else (before.shape, after.shape))


def _content(rng, scene):
    carriers = [thing for thing in scene.things if thing.can_carry_content]
    if not carriers:
        return None
    before = choose(rng, carriers)
    after = replace_thing(before, content=choose(rng, CONTENTS, before.content))
    if after.content == "none":
        text = f"remove the {before.content} from the {name(before)}"
    elif before.content == "none":
        text = choose(
            rng, (f"draw a {after.content} on the {name(before)}", f"put a {after.content} on the {name(before)}")
        )
    else:
        text = f"change the {before.content} on the {name(before)} to a {after.content}"
    return _swap(scene, before, after, text, (before.shape, after.shape))


def _pose(rng, scene):
    before = choose(rng, scene.things)
    if before.shape in FLIPPABLE and rng.random() < 0.5:
        after = replace_thing(before, flipped=not before.flipped)
        return _swap(scene, before, after, f"turn the {name(before)} upside down", (before.shape, after.shape))
    side = choose(rng, ("left", "right"))
    step = -1 if side == "left" else 1
    others = occupied(thing for thing in scene.things if thing != before)
    after = before
    while True:  # it slides until it meets the edge or another thing, so that the instruction has one answer
        column = after.column + step
        if not 0 <= column <= GRID - before.size or others[replace_thing(before, column=column).cells].any():
            break
        after = replace_thing(before, column=column)
    if abs(after.column - before.column) < 2:
        return None
    return _swap(scene, before, after, f"move the {name(before)} to the {side}", (before.shape, after.shape))


def _add(rng, scene):
    if len(scene.things) > 2:
        return None
    where, column = choose(rng, tuple(ADD_COLUMNS.items()))
    after = random_thing(rng, 3, column, GRID)
    taken = occupied(scene.things)[after.cells].any() or any(name(after) == name(thing) for thing in scene.things)
    if taken:
        return None
    text = choose(rng, (f"add {describe(after)} {where}", f"put {describe(after)} {where}"))
    return Edit(source=scene, target=replace(scene, things=(*scene.things, after)), instruction=text, after=after)


def _delete(rng, scene):
    before = choose(rng, scene.things)
    others = tuple(thing for thing in scene.things if thing != before)
    text = choose(rng, (f"remove the {name(before)}", f"delete the {name(before)}", f"take away the {name(before)}"))
    return Edit(source=scene, target=replace(scene, things=others), instruction=text, before=before)


def _background(rng, scene):
    target = replace(scene, background=choose(rng, BACKGROUNDS, scene.background))
    texts = [f"change the background to {_the_place(target)}", f"place it {PLACES[target.background]}"]
    texts += {"snow": ["make it snow"] * 2, "night": ["make it night"] * 2}.get(target.background, [])
    blend = (scene.background, target.background)
    return Edit(source=scene, target=target, instruction=choose(rng, texts), blend_words=blend)


def _the_place(scene: Scene) -> str:
    return {"meadow": "a meadow", "beach": "a beach", "sea": "the sea", "wall": "a brick wall"}.get(
        scene.background, scene.background
    )


def _style(rng, scene):
    target = replace(scene, style=choose(rng, STYLES, "photo"))
    phrase = {"sketch": "a sketch", "sepia": "an old sepia photo"}.get(target.style, target.style)
    text = choose(rng, (f"turn it into {phrase}", f"make it look like {phrase}"))
    return Edit(source=scene, target=target, instruction=text)


_MAKERS: dict[str, Callable[[np.random.Generator, Scene], Edit | None]] = {
    **{kind: partial(_attribute, attribute=kind) for kind in _ATTRIBUTES},
    "add": _add, "delete": _delete, "content": _content, "pose": _pose, "background": _background, "style": _style,
}  # fmt: skip
