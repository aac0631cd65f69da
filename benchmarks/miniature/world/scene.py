"""Scenes of the miniature world: what can be in one, and how one is drawn at random.

A scene is a background, a style and one to three objects that stand on an 8 x 8 grid of 8-pixel cells. Positions and
sizes are whole cells, so that one cell of the scene is one token of the tokenizer (8x downsampling at 64 pixels).
"""

import hashlib
from dataclasses import dataclass

import numpy as np

CELL = 8
GRID = 8
SIDE = CELL * GRID
HORIZON = 3  # rows of cells above the ground

BACKGROUNDS = ("meadow", "beach", "sea", "wall", "night", "snow")
STYLES = ("photo", "sketch", "pixel art", "sepia")
SHAPES = ("disc", "square", "triangle", "star", "heart", "ring")
COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
MATERIALS = ("plain", "striped", "checked", "dotted")
CONTENTS = ("none", "cross", "face")
SIZES = (3, 4)
FLIPPABLE = ("triangle", "heart", "star")


@dataclass(frozen=True, kw_only=True, order=True)
class Thing:
    """One object. `column`, `row`: its left column and the row its base stands on (exclusive), in cells."""

    shape: str
    colour: str
    material: str
    content: str
    size: int
    column: int
    row: int
    flipped: bool = False

    @property
    def cells(self) -> tuple[slice, slice]:
        """Rows and columns that it fills, in cells."""
        return slice(self.row - self.size, self.row), slice(self.column, self.column + self.size)

    @property
    def depth(self) -> float:
        """Nearness in [0, 1]: the nearer its base is to the lower edge, the nearer it is."""
        return 0.25 + 0.7 * (self.row - HORIZON - 1) / (GRID - HORIZON - 1)

    @property
    def can_carry_content(self) -> bool:
        return self.shape != "ring"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a picture shows; `things` are kept from left to right."""

    background: str
    things: tuple[Thing, ...]
    style: str = "photo"

    def __post_init__(self):
        object.__setattr__(self, "things", tuple(sorted(self.things, key=lambda t: (t.column, t.row))))

    @property
    def held_out(self) -> bool:
        """Whether the scene belongs to evaluation: one in sixteen, by a digest of its parameters, never trained on."""
        return hashlib.sha256(repr(self).encode()).digest()[0] % 16 == 0


def occupied(things) -> np.ndarray:
    """Cells (8, 8) bool that `things` fill."""
    cells = np.zeros((GRID, GRID), bool)
    for thing in things:
        cells[thing.cells] = True
    return cells


def choose(rng: np.random.Generator, options, but=None):
    """One of `options`, uniformly, that is not `but`."""
    options = [option for option in options if option != but]
    return options[int(rng.integers(len(options)))]


def random_thing(rng: np.random.Generator, size: int, column: int, row: int) -> Thing:
    """A thing of random appearance at a given place."""
    shape = choose(rng, SHAPES)
    thing = Thing(
        shape=shape, colour=choose(rng, COLOURS), material=choose(rng, MATERIALS), content="none",
        size=size, column=column, row=row, flipped=shape in FLIPPABLE and rng.random() < 0.15,
    )  # fmt: skip
    if thing.can_carry_content and rng.random() < 0.3:
        thing = replace_thing(thing, content=choose(rng, CONTENTS[1:]))
    return thing


def replace_thing(thing: Thing, **changes) -> Thing:
    """`thing` with other parameters; content goes and flips end where the new shape cannot have them."""
    values = {**thing.__dict__, **changes}
    changed = Thing(**values)
    if changed.content != "none" and not changed.can_carry_content:
        changed = Thing(**{**values, "content": "none"})
    if changed.flipped and changed.shape not in FLIPPABLE:
        changed = Thing(**{**changed.__dict__, "flipped": False})
    return changed


def random_scene(rng: np.random.Generator, count: int | None = None) -> Scene:
    """A photo of `count` things (1 to 3, random by default) that differ in colour or shape and do not overlap."""
    count = count or 1 + int(rng.choice(3, p=(0.4, 0.45, 0.15)))
    things: list[Thing] = []
    free = ~np.zeros((GRID, GRID), bool)
    for _ in range(200):
        if len(things) == count:
            break
        size = int(rng.choice(SIZES, p=(0.6, 0.4)))
        thing = random_thing(rng, size, int(rng.integers(GRID - size + 1)), int(rng.integers(HORIZON + 2, GRID + 1)))
        alike = any((t.shape, t.colour) == (thing.shape, thing.colour) for t in things)
        if alike or not free[thing.cells].all():
            continue
        free[thing.cells] = False
        things.append(thing)
    return Scene(background=choose(rng, BACKGROUNDS), things=tuple(things))
