"""Pictures and ground-truth maps of a scene: image, segmentation, depth; all (64, 64), in well under a millisecond."""

import functools

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.miniature.scene import BACKGROUNDS, CELL, HORIZON, SHAPES, SIDE, Scene, Thing

RGB = {
    "red": (214, 40, 40), "orange": (245, 130, 20), "yellow": (245, 220, 50), "green": (40, 160, 60),
    "cyan": (60, 210, 220), "blue": (40, 70, 210), "purple": (140, 50, 170), "white": (245, 245, 245),
}  # fmt: skip
# Segmentation train ids: backgrounds 0..5, then shapes 6..11; 255 is unused, as in COCO-Stuff.
CLASSES = BACKGROUNDS + SHAPES
PALETTE = np.array(
    [(60, 140, 60), (230, 210, 150), (40, 90, 170), (150, 80, 70), (40, 30, 70), (190, 210, 230),
     (255, 0, 0), (0, 255, 0), (255, 255, 0), (255, 0, 255), (255, 255, 255), (0, 255, 255)], np.uint8,
)  # fmt: skip
_SUPERSAMPLING = 4


def render(scene: Scene) -> np.ndarray:
    """The scene as uint8 (64, 64, 3)."""
    image = _background(scene.background, scene.light).copy()
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
    paint = _content(paint, content, n, flipped)
    paint = np.where(inside[..., None] > 0, inside[..., None] * paint + (1 - inside[..., None]) * 25, 25)
    shadow = 0.4 * np.clip(1.3 - ((x - n / 2) / (0.42 * n)) ** 2 - ((y - 0.95 * n) / (0.05 * n)) ** 2, 0, 1)
    alpha = rim + (1 - rim) * shadow
    sprite = np.where(alpha[..., None] > 0, paint * (rim / np.maximum(alpha, 1e-6))[..., None], 0)
    return sprite.astype(np.float32), alpha[..., None].astype(np.float32)


def _material(colour: np.ndarray, material: str, name: str, n: int) -> np.ndarray:
    """The surface (n, n, 3), drawn finer and averaged; stripes, checks and dots repeat with every cell."""
    fine = n * _SUPERSAMPLING
    y, x = (np.mgrid[0:fine, 0:fine] + 0.5) / (CELL * _SUPERSAMPLING)
    size = n / CELL
    shade = (1.12 - 0.3 * y / size)[..., None]
    if material == "metallic":
        across = (x + y) / size
        gleam = np.exp(-((across - 0.75) ** 2) / 0.02) + 0.6 * np.exp(-((across - 1.3) ** 2) / 0.02)
        paint = (0.55 * colour + 200 * gleam[..., None]) * shade
    else:
        dark = {"striped": x % 1 < 0.5, "checked": (x // 0.5 + y // 0.5) % 2 < 1}.get(material, np.zeros_like(x, bool))
        paint = np.where(dark[..., None], 0.4 * colour, colour) * shade
    if material == "dotted":
        dot = ((x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.27**2)[..., None]
        paint = np.where(dot, 60.0 if name == "white" else 250.0, paint)
    return paint.reshape(n, _SUPERSAMPLING, n, _SUPERSAMPLING, 3).mean((1, 3))


def _content(paint: np.ndarray, content: str, n: int, flipped: bool) -> np.ndarray:
    if content == "none":
        return paint
    m = n * _SUPERSAMPLING
    canvas = Image.new("L", (m, m), 128)
    pen = ImageDraw.Draw(canvas)
    c, middle = m / 2, m * (0.58 if not flipped else 0.42)
    if content == "cross":
        for grow, ink in ((0.03, 0), (0.0, 255)):
            arm, half = (0.2 + grow) * m, (0.06 + grow) * m
            pen.rectangle((c - arm, middle - half, c + arm, middle + half), fill=ink)
            pen.rectangle((c - half, middle - arm, c + half, middle + arm), fill=ink)
        pen.rectangle((c - 0.19 * m, middle - 0.06 * m, c + 0.19 * m, middle + 0.06 * m), fill=255)
    else:
        pen.ellipse((c - 0.24 * m, middle - 0.24 * m, c + 0.24 * m, middle + 0.24 * m), fill=255)
        for side in (-1, 1):
            x, eye, r = c + side * 0.1 * m, middle - 0.07 * m, 0.045 * m
            pen.ellipse((x - r, eye - r, x + r, eye + r), fill=0)
        pen.arc(
            (c - 0.15 * m, middle - 0.14 * m, c + 0.15 * m, middle + 0.15 * m), 20, 160, fill=0, width=int(0.05 * m)
        )
    tone = np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32)[..., None]
    weight = np.abs(tone - 128) / 128
    return weight * np.where(tone > 128, 250.0, 15.0) + (1 - weight) * paint


@functools.cache
def _background(name: str, light: int) -> np.ndarray:
    """Background float32 (64, 64, 3), drawn at twice the size; the textures are fixed, the light tints them."""
    rng = np.random.default_rng(BACKGROUNDS.index(name))
    side, horizon = 2 * SIDE, 2 * HORIZON * CELL
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    up, down = (y / horizon)[..., None], ((y - horizon) / (side - horizon))[..., None]
    noise = Image.fromarray(rng.normal(size=(side, side)).astype(np.float32))
    soft = 4 * np.asarray(noise.resize((side // 4,) * 2, Image.Resampling.BOX).resize((side,) * 2))[..., None]
    sky = {
        "meadow": (90, 160, 235), "beach": (150, 200, 235), "sea": (170, 190, 205),
        "wall": (165, 85, 65), "night": (18, 18, 50), "snow": (150, 165, 185),
    }[name]  # fmt: skip
    ground = {
        "meadow": (70, 150, 50), "beach": (225, 200, 140), "sea": (30, 90, 160),
        "wall": (150, 145, 140), "night": (45, 48, 58), "snow": (232, 238, 245),
    }[name]  # fmt: skip
    above = np.array(sky, np.float32) * (1 - 0.25 * up) + 64 * up
    below = np.array(ground, np.float32) * (0.9 + 0.15 * down) + soft * {"meadow": 9, "snow": 3}.get(name, 4)
    if name == "sea":
        below = below + 22 * (np.sin(y / 2.55 + 1.2 * np.sin(x / 10.2)))[..., None]
    if name == "wall":
        offset = np.where((y // 8) % 2 == 0, 0, 8)
        mortar = (y % 8 < 1.5) | ((x + offset) % 16 < 1.5)
        above = np.where(mortar[..., None], 205.0, np.array(sky, np.float32) + 8 * soft)
    if name in ("night", "snow"):
        spots = np.zeros((side, side, 1), np.float32)
        for cy, cx in zip(rng.integers(3, horizon - 3, 22), rng.integers(3, side - 3, 22), strict=True):
            spots = np.maximum(spots, np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 2.5)[..., None])
        above = above + (250 - above) * spots
    tint = np.array(((1.0, 1.0, 1.0), (1.05, 0.97, 0.82), (0.78, 0.8, 0.88))[light], np.float32)
    image = (np.where(y[..., None] < horizon, above, below) * tint).clip(0, 255)
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
