"""How well held-out edits were made, by the world's own ground truth.

Per edit type: the error inside the mask against copying the source and against the autoencoder's reconstruction of the
true result; how often the instruction was followed, and how often nothing else had changed either, by the pixel judge,
with what it says of the true results as the autoencoder restores them; the background's PSNR and the autoencoder's.
The ablation's attribute heads are read at the places where the world knows that something is.
"""

import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from baselines.method import EditRequest, Method
from benchmarks.miniature.evaluate.perception import DENSE_HEADS, GLOBAL_HEADS, STRIDE, Perception
from benchmarks.miniature.evaluate.pixel_judge import followed, nothing_else_changed
from benchmarks.miniature.world.edits import KINDS, Edit
from benchmarks.miniature.world.embedded import held_out_edits
from benchmarks.miniature.world.render import render, silhouette
from benchmarks.miniature.world.scene import BACKGROUNDS, CELL, SIDE, Scene, Thing
from reports.tables.statistics import mean_interval

COLUMNS = {  # of the table: title, in which {} is the autoencoder's name, and format
    "n": ("n", "{}"),
    "error": ("error in the mask", "{:.1f}"),
    "error_copy_source": ("copy the source", "{:.1f}"),
    "error_reconstructed_truth": ("{}'s floor", "{:.1f}"),
    "followed": ("instruction followed", "{:.0%}"),
    "followed_reconstructed_truth": ("{}'s", "{:.0%}"),
    "all_right": ("all right", "{:.0%}"),
    "all_right_reconstructed_truth": ("{}'s", "{:.0%}"),
    "psnr": ("background PSNR", "{:.1f}"),
    "psnr_reconstruction": ("{}'s PSNR", "{:.1f}"),
}
ATTRIBUTES = ("shape", "colour", "material", "content", "flipped")
BATCH = 16  # edits that a method gets together
JUDGED = ("followed", "all_right")
IN_GRID = tuple(type_id for type_id, kind in KINDS.items() if kind != "random")


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


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Edits and their pictures, uint8 (64, 64, 3): before, after, and both as the method's autoencoder restores them,
    which is the best that it could do."""

    edits: list[Edit]
    sources: list[np.ndarray]
    truths: list[np.ndarray]
    restored_sources: list[np.ndarray]
    restored_truths: list[np.ndarray]

    @classmethod
    def draw(
        cls,
        counts: Mapping[str, int],
        seed: int,
        restore: Callable[[list[Image.Image]], Sequence[Image.Image]],
    ) -> "HeldOut":
        """`counts[type]` edits of every type; restore: images through the autoencoder."""
        edits = held_out_edits(dict(counts), seed)
        sources, truths = [render(edit.source) for edit in edits], [render(edit.target) for edit in edits]
        restored = [[np.asarray(image) for image in restore(pil(images))] for images in (sources, truths)]
        return cls(
            edits=edits, sources=sources, truths=truths,
            restored_sources=restored[0], restored_truths=restored[1],
        )  # fmt: skip

    def edited(self, method: Method) -> list[np.ndarray]:
        """What a loaded method makes of the edits, the noise of each from its own seed."""
        requests = [
            EditRequest(
                sample_id=str(i), image=image, instruction=edit.instruction, source_prompt=edit.prompts[0],
                target_prompt=edit.prompts[1], blend_words=edit.blend_words, seed=i,
            )
            for i, (edit, image) in enumerate(zip(self.edits, pil(self.sources), strict=True))
        ]  # fmt: skip
        parts = [requests[start : start + BATCH] for start in range(0, len(requests), BATCH)]
        return [np.asarray(image) for part in tqdm(parts, mininterval=5) for image in method.edit(part)]

    def scores(self, edited: Sequence[np.ndarray]) -> dict[str, dict[str, Any]]:
        """The figures of `edited`, results of the edits in their order: by kind of edit, and of "all".

        Errors are mean absolute differences inside the mask, in 0..255; None where there is nothing to measure. Shares
        of instructions followed and of edits all right (see `pixel_judge`) come with their intervals, as <name>_low and
        <name>_high.
        """
        figures = pd.DataFrame({
            "error": self._errors(edited),
            "error_copy_source": self._errors(self.sources),
            "error_reconstructed_truth": self._errors(self.restored_truths),
            **self._judged(edited),
            **self._ceilings,
            "psnr": self._psnrs(edited),
            "psnr_reconstruction": self._psnrs(self.restored_sources),
        })  # fmt: skip
        kinds = figures.groupby(np.array([KINDS[edit.type_id] for edit in self.edits]), sort=False)
        means = pd.concat([kinds.mean(), figures.mean().to_frame("all").T])
        means.insert(0, "n", [*kinds.size(), len(figures)])
        for name in JUDGED:
            shares = [*(of_kind for _, of_kind in kinds[name]), figures[name]]
            intervals = [mean_interval(each, np.arange(len(each)), fewest=1, share=True) for each in shares]
            means[f"{name}_low"], means[f"{name}_high"] = zip(*((i.low, i.high) for i in intervals), strict=True)
        return means.astype(object).where(means.notna(), None).to_dict("index")

    def _judged(self, images: Sequence[np.ndarray]) -> dict[str, list[float]]:
        pairs = list(zip(images, self.edits, strict=True))
        follows = [followed(*pair) for pair in pairs]
        right = [each and nothing_else_changed(*pair) for each, pair in zip(follows, pairs, strict=True)]
        return {name: list(map(float, found)) for name, found in zip(JUDGED, (follows, right), strict=True)}

    @cached_property
    def _ceilings(self) -> dict[str, list[float]]:
        """What the judge says of the true results as the autoencoder restores them."""
        return {f"{name}_reconstructed_truth": found for name, found in self._judged(self.restored_truths).items()}

    def _errors(self, results: Sequence[np.ndarray]) -> list[float]:
        """The error of each result inside its edit's mask; NaN where the mask is empty."""
        rows = zip(results, self.truths, self._masks, strict=True)
        return [np.abs(a.astype(float) - b)[mask].mean() if mask.any() else np.nan for a, b, mask in rows]

    def _psnrs(self, results: Sequence[np.ndarray]) -> list[float]:
        """The PSNR of each result against its source outside the mask; NaN where the mask is the whole picture."""
        rows = zip(results, self.sources, self._masks, strict=True)
        squares = [np.square(a.astype(float) - b)[~mask].mean() if not mask.all() else np.nan for a, b, mask in rows]
        return [10 * np.log10(255**2 / np.maximum(square, 1e-3)) for square in squares]

    @cached_property
    def _masks(self) -> list[np.ndarray]:
        return [edit.mask() for edit in self.edits]

    def grid(self, edited: Sequence[np.ndarray], title: str, scale: int = 2, examples: int = 2) -> Image.Image:
        """Rows of source, edit, ground truth with the instruction, `examples` for each type of IN_GRID; title: the
        method's."""
        from matplotlib import pyplot

        chosen = [[i for i, edit in enumerate(self.edits) if edit.type_id == each][:examples] for each in IN_GRID]
        size = (1.5 * 3 * examples, 1.72 * len(IN_GRID))
        figure, axes = pyplot.subplots(len(IN_GRID), 3 * examples, figsize=size, dpi=64 * scale)
        for line, indices in zip(axes, chosen, strict=True):
            for k, i in enumerate(indices):
                triple = line[3 * k : 3 * k + 3]
                for axis, image in zip(triple, (self.sources[i], edited[i], self.truths[i]), strict=True):
                    axis.imshow(image, interpolation="nearest")
                    axis.set(xticks=[], yticks=[], frame_on=False)
                triple[0].set_title(self.edits[i].instruction, fontsize=6, pad=2, loc="left")
        for axis, name in zip(axes[-1], ("source", title, "true result") * examples, strict=True):
            axis.set_xlabel(name, fontsize=6)
        figure.subplots_adjust(0.01, 0.02, 0.99, 0.98, 0.04, 0.16)
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        pyplot.close(figure)
        return Image.open(picture).convert("RGB")


def pil(images: Sequence[np.ndarray]) -> list[Image.Image]:
    return [Image.fromarray(image) for image in images]


def markdown(rows: Mapping[str, Mapping[str, Any]], autoencoder: str) -> str:
    """The figures of `HeldOut.scores` as a Markdown table; autoencoder: what the method's is called."""
    head = ["edit", *(title.format(autoencoder) for title, _ in COLUMNS.values())]
    cells = [
        [kind, *("–" if row[key] is None else form.format(row[key]) for key, (_, form) in COLUMNS.items())]
        for kind, row in rows.items()
    ]
    return markdown_table(head, cells)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells).rstrip()} |" for cells in (head, *rows)]
    return "\n".join([lines[0], f"{'|---' * len(head)}|", *lines[1:], ""])
