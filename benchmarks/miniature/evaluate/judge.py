"""Did a picture become the scene that was asked for? Judged by the attribute heads at the places the world knows."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.miniature.evaluate.perception import DENSE_HEADS, GLOBAL_HEADS, STRIDE, Perception
from benchmarks.miniature.world.edits import Edit
from benchmarks.miniature.world.render import silhouette
from benchmarks.miniature.world.scene import BACKGROUNDS, CELL, SIDE, Scene, Thing

ATTRIBUTES = ("shape", "colour", "material", "content", "flipped")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """asked: the changed attribute is the one asked for; kept: all others are as they were; wrong: which are not."""

    asked: bool
    kept: bool
    wrong: tuple[str, ...]

    @property
    def followed(self) -> bool:
        return self.asked and self.kept


@torch.inference_mode()
def judge(network: Perception, images: Tensor, edits: list[Edit]) -> list[Verdict]:
    """One verdict an image; `images` (B, 3, 64, 64) in [-1, 1] are results of `edits`."""
    return [_verdict(heads, edit) for heads, edit in zip(_heads(network, images), edits, strict=True)]


@torch.inference_mode()
def head_accuracy(network: Perception, images: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """Share of right readings, attribute by attribute, on pictures (B, 3, 64, 64) in [-1, 1] of known scenes."""
    right: dict[str, list[bool]] = defaultdict(list)
    for heads, scene in zip(_heads(network, images), scenes, strict=True):
        for name, (read, true) in read_scene(heads, scene).items():
            right[name.split(" ")[0]].append(read == true)
    return {attribute: sum(found) / len(found) for attribute, found in right.items()}


def _heads(network: Perception, images: Tensor) -> list[dict[str, Tensor]]:
    """The logits of every head, image by image."""
    out = network.predict(network.features(images))
    return [{name: logits[i].float() for name, logits in out.items()} for i in range(len(images))]


def read_scene(heads: dict[str, Tensor], scene: Scene) -> dict[str, tuple[str, str]]:
    """What the heads read where `scene` has something, and what is there: {attribute of a thing: (read, true)}."""
    readings: dict[str, tuple[str, str]] = {}
    for thing in scene.things:
        for attribute in ATTRIBUTES:
            if attribute == "content" and not thing.can_carry_content:
                continue
            true = ("upright", "flipped")[thing.flipped] if attribute == "flipped" else getattr(thing, attribute)
            readings[f"{attribute} of {thing.colour} {thing.shape}"] = (_read(heads, thing, attribute), true)
    for name, names in GLOBAL_HEADS.items():
        readings[name] = (names[int(heads[name].argmax())], getattr(scene, name))
    return readings


def _read(heads: dict[str, Tensor], thing: Thing, attribute: str) -> str:
    """The attribute's most likely value over the thing's silhouette."""
    head = "segmentation" if attribute == "shape" else attribute
    scores = heads[head].log_softmax(0)[:, _places(thing)].mean(1)
    return DENSE_HEADS[head][int(scores.argmax())]


def _places(thing: Thing) -> Tensor:
    """The thing's silhouette on the heads' grid, bool (32, 32)."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    rows, columns = thing.cells
    box = slice(rows.start * CELL, rows.stop * CELL), slice(columns.start * CELL, columns.stop * CELL)
    mask[box] = torch.from_numpy(silhouette(thing).copy())
    return mask[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]


def _verdict(heads: dict[str, Tensor], edit: Edit) -> Verdict:
    if edit.kind == "style":  # a sketch has no colours to keep: only the style is judged
        style = GLOBAL_HEADS["style"][int(heads["style"].argmax())]
        right = style == edit.target.style
        return Verdict(asked=right, kept=True, wrong=() if right else (f"style: {style}",))
    asked, kept, wrong = True, True, []
    changed = {f"{a} of {edit.after.colour} {edit.after.shape}" for a in ATTRIBUTES} if edit.after else set()
    changed = {name for name in changed if edit.before is None or _differs(edit, name)}
    if edit.kind == "background":
        changed = {"background"}
    for name, (read, true) in read_scene(heads, edit.target).items():
        if read != true:
            wrong.append(f"{name}: {read}")
            asked, kept = (False, kept) if name in changed else (asked, False)
    if edit.before is not None and (edit.after is None or edit.after.cells != edit.before.cells):
        gone = _places(edit.before)
        if edit.after is not None:
            gone &= ~_places(edit.after)
        read = DENSE_HEADS["segmentation"][int(heads["segmentation"].log_softmax(0)[:, gone].mean(1).argmax())]
        if read not in BACKGROUNDS:
            wrong.append(f"still there: {read}")
            asked = False
    return Verdict(asked=asked, kept=kept, wrong=tuple(wrong))


def _differs(edit: Edit, name: str) -> bool:
    attribute = name.split(" ")[0]
    return getattr(edit.before, attribute) != getattr(edit.after, attribute)
