"""Scenes of the miniature world: what can be in one, how one is drawn at random, and its English.

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
PLACES = {
    "meadow": "in a meadow", "beach": "on a beach", "sea": "at sea", "wall": "by a brick wall", "night": "at night",
    "snow": "in the snow",
}  # fmt: skip
_CONTENT = {"none": "", "cross": " with a cross", "face": " with a face"}
_TEMPLATE_WORDS = """
given the depth image canny edge segmentation mask generate an following description instruction a and photo of
sketch pixel art sepia plain striped checked dotted upside down turn make change replace remove delete add put
draw into colour material background to from with on in at by it is move left right middle style old like look take
away set scene place there onto nothing cross face meadow beach sea brick wall night snow
""".split()  # noqa: SIM905
# All words of captions and instructions: lower case, no punctuation.
VOCABULARY = tuple(sorted({*_TEMPLATE_WORDS, *COLOURS, *SHAPES}))


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


def article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def name(thing: Thing) -> str:
    """What an instruction calls a thing; unique in its scene, where colour and shape never both agree."""
    return f"{thing.colour} {thing.shape}"


def describe(thing: Thing) -> str:
    """All there is to say about a thing: "a red striped heart upside down with a cross"."""
    material = "" if thing.material == "plain" else f"{thing.material} "
    down = " upside down" if thing.flipped else ""
    return article(f"{thing.colour} {material}{thing.shape}") + down + _CONTENT[thing.content]


def caption(scene: Scene) -> str:
    """Things from left to right, then the place, then the style unless it is a photo."""
    things = [describe(thing) for thing in scene.things]
    listed = " and ".join(things) if things else "nothing"
    style = "" if scene.style == "photo" else f"{article(scene.style)} of "
    return f"{style}{listed} {PLACES[scene.background]}"
