"""Pictures and ground-truth maps of a scene: image, segmentation, depth; all (64, 64), in well under a millisecond.

And pictures as networks take them.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.datasets.translation_protocols import canny_map
from benchmarks.miniature.world.scene import BACKGROUNDS, CELL, GRID, HORIZON, SHAPES, SIDE, Scene, Thing

RGB = {
    "red": (225, 35, 35), "yellow": (245, 215, 40), "green": (30, 165, 60), "blue": (45, 75, 230),
    "purple": (165, 50, 190), "white": (245, 245, 245),
}  # fmt: skip
# Segmentation train ids: backgrounds 0..5, then shapes 6..11; 255 is unused, as in COCO-Stuff.
CLASSES = BACKGROUNDS + SHAPES
PALETTE = np.array(
    [(60, 140, 60), (230, 210, 150), (40, 90, 170), (150, 80, 70), (40, 30, 70), (190, 210, 230),
     (255, 0, 0), (0, 255, 0), (255, 255, 0), (255, 0, 255), (255, 255, 255), (0, 255, 255)], np.uint8,
)  # fmt: skip
_SUPERSAMPLING = 4
BATCH = 64  # images that go through a network together


def render(scene: Scene) -> np.ndarray:
    """The scene as uint8 (64, 64, 3)."""
    image = _background(scene.background).copy()
    for thing in scene.things:
        sprite, alpha = _sprite(_appearance(thing))
        box = _pixels(thing)
        image[box] += alpha * (sprite - image[box])
    return _STYLES[scene.style](image.clip(0, 255)).round().astype(np.uint8)


def segmentation(scene: Scene) -> np.ndarray:
    """Train ids uint8 (64, 64)."""
    labels = np.full((SIDE, SIDE), BACKGROUNDS.index(scene.background), np.uint8)
    for thing in scene.things:
        labels[_pixels(thing)][silhouette(thing)] = CLASSES.index(thing.shape)
    return labels


def depth(scene: Scene) -> np.ndarray:
    """Nearness uint8 (64, 64): 0 at infinity, 255 at the lower edge, as MiDaS and DPT draw it."""
    rows = np.arange(SIDE)[:, None] - HORIZON * CELL
    nearness = (rows / (SIDE - HORIZON * CELL)).clip(0, 1) * np.ones((1, SIDE))
    for thing in scene.things:
        nearness[_pixels(thing)][silhouette(thing)] = thing.depth
    return (255 * nearness).round().astype(np.uint8)


def condition(scene: Scene, task: str) -> np.ndarray:
    """The condition image of a translation task, uint8 (64, 64, 3)."""
    if task == "segmentation":
        return PALETTE[segmentation(scene)]
    return np.repeat((depth(scene) if task == "depth" else canny_map(render(scene), "kornia"))[..., None], 3, axis=-1)


def to_tensor(images: list[np.ndarray]) -> Tensor:
    """uint8 (64, 64, 3) arrays -> float32 (B, 3, 64, 64) in [-1, 1], channels last in memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def through(network: Callable[[Tensor], Tensor], images: Sequence[np.ndarray], device: str | torch.device) -> Tensor:
    """What a network makes of uint8 images (n, 64, 64, 3), BATCH at a time; on the CPU."""
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return torch.cat([network(to_tensor(list(part)).to(device)).cpu() for part in parts])


def silhouette(thing: Thing) -> np.ndarray:
    """The pixels of the thing inside its square, bool (8 size, 8 size); the shadow does not count."""
    return _silhouette(thing.shape, thing.size, thing.flipped)


def _pixels(thing: Thing) -> tuple[slice, slice]:
    rows, columns = thing.cells
    return slice(rows.start * CELL, rows.stop * CELL), slice(columns.start * CELL, columns.stop * CELL)


def _appearance(thing: Thing) -> tuple:
    return thing.shape, thing.colour, thing.material, thing.content, thing.size, thing.flipped


@functools.cache
def _silhouette(shape: str, size: int, flipped: bool) -> np.ndarray:
    _, inside = _draw_shape(shape, size, flipped)
    return inside > 0.5


def _outline(shape: str, n: int, grow: float = 0.0) -> list[tuple[float, float]]:
    """The polygon of a shape in a square of n pixels, grown by `grow` pixels from its centre."""
    t = np.linspace(0, 2 * np.pi, 121)[:-1]
    if shape == "square":
        x, y = np.array([-0.8, 0.8, 0.8, -0.8]), np.array([-0.8, -0.8, 0.8, 0.8])
    elif shape == "triangle":
        x, y = np.array([0.0, 0.92, -0.92]), np.array([-0.88, 0.82, 0.82])
    elif shape == "star":
        angle = np.arange(10) * np.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 0.98, 0.46)
        x, y = radius * np.sin(angle), 0.05 - radius * np.cos(angle)
    elif shape == "heart":
        x = 0.92 * np.sin(t) ** 3
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 17
    else:
        x, y = 0.88 * np.sin(t), -0.88 * np.cos(t)
    scale = n / 2 * 0.92 + grow
    return [(n / 2 + scale * a, n / 2 * 0.96 + scale * b) for a, b in zip(x, y, strict=True)]


def _draw_shape(shape: str, size: int, flipped: bool) -> tuple[np.ndarray, np.ndarray]:
    """Coverage in [0, 1] of the shape with its dark rim, and of its inside, each (8 size, 8 size)."""
    n = size * CELL * _SUPERSAMPLING
    covers = []
    for grow in (0.0, -1.1 * _SUPERSAMPLING):
        canvas = Image.new("L", (n, n))
        pen = ImageDraw.Draw(canvas)
        pen.polygon(_outline(shape, n, grow), fill=255)
        if shape == "ring":
            centre, radius = (n / 2, n / 2 * 0.96), 0.36 * n / 2 - grow
            pen.ellipse((centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius), fill=0)
        cover = np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / 255
        covers.append(cover[::-1] if flipped else cover)
    return covers[0], covers[1]


@functools.cache
def _sprite(appearance: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Colour (n, n, 3) in 0..255 and opacity (n, n, 1) in [0, 1] of a thing with its contact shadow."""
    shape, colour, material, content, size, flipped = appearance
    n = size * CELL
    rim, inside = _draw_shape(shape, size, flipped)
    y, x = np.mgrid[0:n, 0:n] + 0.5
    paint = _material(np.array(RGB[colour], np.float32), material, colour, n)
    paint = _content(paint, content, n)
    paint = np.where(inside[..., None] > 0, inside[..., None] * paint + (1 - inside[..., None]) * 25, 25)
    shadow = 0.4 * np.clip(1.3 - ((x - n / 2) / (0.42 * n)) ** 2 - ((y - 0.95 * n) / (0.05 * n)) ** 2, 0, 1)
    alpha = rim + (1 - rim) * shadow
    sprite = np.where(alpha[..., None] > 0, paint * (rim / np.maximum(alpha, 1e-6))[..., None], 0)
    return sprite.astype(np.float32), alpha[..., None].astype(np.float32)


def _material(colour: np.ndarray, material: str, name: str, n: int) -> np.ndarray:
    """The surface (n, n, 3), drawn finer and averaged; stripes, checks and dots repeat with every cell."""
    fine = n * _SUPERSAMPLING
    y, x = (np.mgrid[0:fine, 0:fine] + 0.5) / (CELL * _SUPERSAMPLING)
    shade = (1.06 - 0.15 * y / (n / CELL))[..., None]
    second = {
        "plain": np.zeros_like(x, bool),
        "striped": x % 1 < 0.5,
        "checked": (x // 0.5 + y // 0.5) % 2 < 1,
        "dotted": (x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.3**2,
    }[material][..., None]
    # Dark stripes and checks, light dots: the second tone is far from the first, whatever the colour.
    tone = (60.0 if name == "white" else 250.0) if material == "dotted" else 0.3 * colour
    paint = np.where(second, tone, colour) * shade
    return paint.reshape(n, _SUPERSAMPLING, n, _SUPERSAMPLING, 3).mean((1, 3))


def _content(paint: np.ndarray, content: str, n: int) -> np.ndarray:
    """A badge in the middle, white with black lines, that hides the surface under it."""
    if content == "none":
        return paint
    m = n * _SUPERSAMPLING
    ink, badge = Image.new("L", (m, m), 255), Image.new("L", (m, m), 0)
    pen, c = ImageDraw.Draw(ink), m / 2

    def ellipse(x: float, y: float, rx: float, ry: float) -> tuple[float, float, float, float]:
        return c + (x - rx) * m, c + (y - ry) * m, c + (x + rx) * m, c + (y + ry) * m

    ImageDraw.Draw(badge).ellipse(ellipse(0, 0, 0.175, 0.175), fill=255)
    if content == "cross":
        pen.rectangle(ellipse(0, 0, 0.175, 0.045), fill=0)
        pen.rectangle(ellipse(0, 0, 0.045, 0.175), fill=0)
    else:
        for side in (-1, 1):
            pen.ellipse(ellipse(0.075 * side, -0.055, 0.04, 0.045), fill=0)
        pen.rectangle(ellipse(0, 0.08, 0.1, 0.027), fill=0)
    tone, cover = (np.asarray(part.reduce(_SUPERSAMPLING), np.float32)[..., None] / 255 for part in (ink, badge))
    return cover * 250 * tone + (1 - cover) * paint


@functools.cache
def _background(name: str) -> np.ndarray:
    """Background float32 (64, 64, 3), drawn at twice the size; its textures repeat after one or two cells."""
    rng = np.random.default_rng(BACKGROUNDS.index(name))
    cell, side, horizon = 2 * CELL, 2 * SIDE, 2 * HORIZON * CELL
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    up, down = (y / horizon)[..., None], ((y - horizon) / (side - horizon))[..., None]
    soft = np.tile(rng.normal(size=(4, 4)).repeat(cell // 4, 0).repeat(cell // 4, 1), (GRID, GRID))[..., None]
    sky = {
        "meadow": (90, 160, 235), "beach": (150, 200, 235), "sea": (170, 190, 205),
        "wall": (165, 85, 65), "night": (18, 18, 50), "snow": (150, 165, 185),
    }[name]  # fmt: skip
    ground = {
        "meadow": (70, 150, 50), "beach": (225, 200, 140), "sea": (30, 90, 160),
        "wall": (150, 145, 140), "night": (45, 48, 58), "snow": (232, 238, 245),
    }[name]  # fmt: skip
    above = np.array(sky, np.float32) * (1 - 0.25 * up) + 64 * up
    below = np.array(ground, np.float32) * (0.9 + 0.15 * down) + soft * {"meadow": 8, "snow": 3}.get(name, 4)
    if name == "sea":
        below = below + 22 * np.sin(2 * np.pi * (y / cell + 0.2 * np.sin(np.pi * x / cell)))[..., None]
    if name == "wall":
        offset = np.where((y // 8) % 2 == 0, 0, 8)
        mortar = (y % 8 < 1.5) | ((x + offset) % 16 < 1.5)
        above = np.where(mortar[..., None], 205.0, np.array(sky, np.float32) + 8 * soft)
    if name in ("night", "snow"):
        spots = np.zeros((side, side, 1), np.float32)
        for cy, cx in zip(rng.integers(3, horizon - 3, 5), rng.integers(3, 2 * cell - 3, 5), strict=True):
            spots = np.maximum(spots, np.exp(-((y - cy) ** 2 + (x % (2 * cell) - cx) ** 2) / 2.5)[..., None])
        above = above + (250 - above) * spots
    image = np.where(y[..., None] < horizon, above, below).clip(0, 255)
    return image.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3)).astype(np.float32)


def _sketch(image: np.ndarray) -> np.ndarray:
    grey = image.mean(-1)
    padded = np.pad(grey, 1, mode="edge")
    slope = np.abs(padded[1:-1, 2:] - padded[1:-1, :-2]) + np.abs(padded[2:, 1:-1] - padded[:-2, 1:-1])
    return np.repeat((225 + 0.1 * grey - 190 * np.clip(slope / 110, 0, 1)).clip(0, 255)[..., None], 3, axis=-1)


def _pixel_art(image: np.ndarray) -> np.ndarray:
    block = CELL // 2
    blocks = image.reshape(SIDE // block, block, SIDE // block, block, 3).mean((1, 3))
    return ((blocks / 51).round() * 51).repeat(block, axis=0).repeat(block, axis=1)


def _sepia(image: np.ndarray) -> np.ndarray:
    return (image @ np.array([0.3, 0.59, 0.11], np.float32))[..., None] * np.array([1.05, 0.88, 0.65], np.float32)


_STYLES = {
    "photo": lambda image: image,
    "sketch": _sketch,
    "pixel art": _pixel_art,
    "sepia": lambda i: _sepia(i).clip(0, 255),
}
