"""English for scenes: captions, names of things, and the miniature's vocabulary (lower-case words, no punctuation)."""

from benchmarks.miniature.world.scene import COLOURS, SHAPES, Scene, Thing

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
VOCABULARY = tuple(sorted({*_TEMPLATE_WORDS, *COLOURS, *SHAPES}))


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
