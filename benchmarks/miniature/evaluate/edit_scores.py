"""How well held-out edits were made, by the world's own ground truth.

Per edit type: the error inside the mask against copying the source and against the autoencoder's reconstruction of the
true result; how often the instruction was followed, judged by the attribute heads (and how often the heads say so of
the true result itself, which bounds what they can say of an edit); the background's PSNR and the autoencoder's.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.miniature.evaluate.judge import Verdict, head_accuracy, judge
from benchmarks.miniature.evaluate.perception import Perception
from benchmarks.miniature.world.batches import to_tensor
from benchmarks.miniature.world.edits import KINDS, Edit
from benchmarks.miniature.world.piebench import held_out_edits
from benchmarks.miniature.world.render import render

IN_GRID = ("6", "8", "3", "2", "7", "1", "9")


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Edits and their pictures, uint8 (64, 64, 3): before, after, and both as the method's autoencoder restores them,
    which is the best that it could do. network: has the heads that judge."""

    network: Perception
    edits: list[Edit]
    sources: list[np.ndarray]
    truths: list[np.ndarray]
    restored_sources: list[np.ndarray]
    restored_truths: list[np.ndarray]

    @classmethod
    def draw(
        cls,
        network: Perception,
        counts: Mapping[str, int],
        seed: int,
        restore: Callable[[list[Image.Image]], Sequence[Image.Image]],
    ) -> "HeldOut":
        """`counts[type]` edits of every type; restore: images through the autoencoder."""
        edits = held_out_edits(dict(counts), seed)
        sources, truths = [render(edit.source) for edit in edits], [render(edit.target) for edit in edits]
        restored = [[np.asarray(image) for image in restore(pil(images))] for images in (sources, truths)]
        return cls(
            network=network, edits=edits, sources=sources, truths=truths,
            restored_sources=restored[0], restored_truths=restored[1],
        )  # fmt: skip

    @cached_property
    def ceilings(self) -> tuple[list[Verdict], list[Verdict]]:
        """What the heads say of the true results, and of these as the autoencoder restores them."""
        return self._judge(self.truths), self._judge(self.restored_truths)

    def scores(self, edited: Sequence[np.ndarray]) -> dict[str, dict[str, Any]]:
        """The figures of `edited`, results of the edits in their order: by kind of edit, and of "all"."""
        verdicts = self._judge(edited)
        kinds = dict.fromkeys(edit.type_id for edit in self.edits)
        groups = {KINDS[each]: [i for i, edit in enumerate(self.edits) if edit.type_id == each] for each in kinds}
        groups["all"] = list(range(len(self.edits)))
        return {kind: self._row(rows, edited, verdicts) for kind, rows in groups.items()}

    def head_accuracy(self) -> dict[str, dict[str, float]]:
        """How often the heads read each attribute right on the true results, which bounds all of `scores`."""
        photos = [i for i, edit in enumerate(self.edits) if edit.kind != "style"]
        scenes = [self.edits[i].target for i in photos]
        return {
            title: head_accuracy(self.network, to_tensor([images[i] for i in photos]), scenes)
            for title, images in (
                ("true results", self.truths),
                ("true results, reconstructed", self.restored_truths),
            )
        }

    def _judge(self, images: Sequence[np.ndarray]) -> list[Verdict]:
        return judge(self.network, to_tensor(list(images)), self.edits)

    def _row(self, rows: list[int], edited: Sequence[np.ndarray], verdicts: list[Verdict]) -> dict[str, Any]:
        """Figures of some edits; errors are mean absolute differences inside the mask, in 0..255."""
        masks = {i: self.edits[i].mask() for i in rows}
        inside = [i for i in rows if masks[i].any()]
        outside = [i for i in rows if not masks[i].all()]
        ceiling, restored_ceiling = self.ceilings

        def error(results: Sequence[np.ndarray]) -> float:
            return float(np.mean([np.abs(results[i].astype(float) - self.truths[i])[masks[i]].mean() for i in inside]))

        def psnr(results: Sequence[np.ndarray]) -> float | None:
            squares = [np.square(results[i].astype(float) - self.sources[i])[~masks[i]].mean() for i in outside]
            return (
                float(np.mean([10 * np.log10(255**2 / max(square, 1e-3)) for square in squares])) if outside else None
            )

        def followed(found: list[Verdict]) -> float:
            return float(np.mean([found[i].followed for i in rows]))

        return {
            "n": len(rows),
            "error": error(edited),
            "error_copy_source": error(self.sources),
            "error_reconstructed_truth": error(self.restored_truths),
            "asked": float(np.mean([verdicts[i].asked for i in rows])),
            "followed": followed(verdicts),
            "followed_truth": followed(ceiling),
            "followed_reconstructed_truth": followed(restored_ceiling),
            "psnr": psnr(edited),
            "psnr_reconstruction": psnr(self.restored_sources),
        }

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
    titles = (
        "edit", "n", "error in the mask", "copy the source", f"{autoencoder}'s floor", "asked-for attribute",
        "instruction followed", "heads on the truth", "heads on the truth, reconstructed", "background PSNR",
        f"{autoencoder}'s PSNR",
    )  # fmt: skip
    head = f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|\n"
    lines = []
    for kind, row in rows.items():
        psnr = ["–" if row[key] is None else f"{row[key]:.1f}" for key in ("psnr", "psnr_reconstruction")]
        shares = [
            f"{100 * row[key]:.0f}%" for key in ("asked", "followed", "followed_truth", "followed_reconstructed_truth")
        ]
        errors = [f"{row[key]:.1f}" for key in ("error", "error_copy_source", "error_reconstructed_truth")]
        lines.append(f"| {' | '.join([kind, str(row['n']), *errors, *shares, *psnr])} |\n")
    return head + "".join(lines)
