"""Does the miniature's EditAR edit? Measured on held-out records with the world's own ground truth.

    python -m benchmarks.miniature.evaluate [--guidance 2.0 3.0] [--out benchmarks/miniature/results]

Per edit type: the error inside the mask against copying the source and against the tokenizer's reconstruction of the
true result; how often the instruction was followed, judged by the attribute heads (and how often the heads say so of
the true result itself, which bounds what they can say of an edit); the background's PSNR and the tokenizer's.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from tqdm import tqdm

from benchmarks.miniature.backbones import load_perception
from benchmarks.miniature.data import to_tensor
from benchmarks.miniature.dataset import held_out_edits
from benchmarks.miniature.edits import KINDS, Edit
from benchmarks.miniature.judge import Verdict, head_accuracy, judge
from benchmarks.miniature.paths import WEIGHTS
from benchmarks.miniature.render import render
from editar.pipeline import EditAR

# 80 of each type that the bar is about, 20 of each other.
COUNTS = {"1": 20, "2": 80, "3": 80, "4": 20, "5": 20, "6": 80, "7": 80, "8": 80, "9": 20}
SEED = 77  # other records than the embedded PIE-Bench's
# The bar's types:
CLOSER = ("add", "delete", "colour", "material", "background")
FOLLOWED = ("delete", "colour", "background")
IN_GRID = ("6", "8", "3", "2", "7", "1", "9")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure the miniature on held-out edits."""

    guidance: tuple[float, ...] = ()
    """Guidance values to measure; none: the checkpoint's own."""
    out: Path = Path(__file__).parent / "results"
    """Folder for results.json, results.md and grid.png."""


def main(arguments: Arguments) -> None:
    """Measure at each guidance value; write the table of the last one and the grid."""
    model = EditAR.from_pretrained(WEIGHTS / "editar")
    network, _ = load_perception(WEIGHTS / "perception.safetensors")
    edits = held_out_edits(COUNTS, SEED)
    sources = [render(edit.source) for edit in edits]
    truths = [render(edit.target) for edit in edits]
    restored_truths = _in_parts(model.reconstruct, _pil(truths))
    restored_sources = _in_parts(model.reconstruct, _pil(sources))
    ceiling = judge(network, to_tensor(truths), edits)
    restored_ceiling = judge(network, to_tensor(restored_truths), edits)
    photos = [i for i, edit in enumerate(edits) if edit.kind != "style"]
    accuracy = {
        title: head_accuracy(network, to_tensor([images[i] for i in photos]), [edits[i].target for i in photos])
        for title, images in (("true results", truths), ("true results, reconstructed", restored_truths))
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict] = {"heads": accuracy}
    for guidance in arguments.guidance or (model.sampling.guidance,):
        edited = _edit(model, edits, sources, guidance)
        verdicts = judge(network, to_tensor(edited), edits)
        groups = {KINDS[each]: [i for i, edit in enumerate(edits) if edit.type_id == each] for each in COUNTS}
        rows = {
            kind: _row(
                indices, edits, sources, truths, edited,
                restored_sources, restored_truths, verdicts, ceiling, restored_ceiling,
            )
            for kind, indices in {**groups, "all": list(range(len(edits)))}.items()
        }  # fmt: skip
        results[f"{guidance:g}"] = rows
        table = markdown(rows)
        print(f"guidance {guidance:g}, n = {len(edits)}\n{table}")
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = f"{table}\n{heads_markdown(accuracy)}\n{bar_markdown(rows)}"
    print(text)
    (arguments.out / "results.md").write_text(f"Guidance {guidance:g}, {len(edits)} held-out edits.\n\n{text}")
    grid(edits, sources, edited, truths).save(arguments.out / "grid.png")


def _edit(model: EditAR, edits: list[Edit], sources: list[np.ndarray], guidance: float) -> list[np.ndarray]:
    done: list[np.ndarray] = []
    for start in tqdm(range(0, len(edits), 16), desc=f"editing, guidance {guidance:g}"):
        part = edits[start : start + 16]
        images = model.edit(
            _pil(sources[start : start + 16]), [edit.instruction for edit in part], guidance=guidance,
            seeds=range(start, start + len(part)),
        )  # fmt: skip
        done += [np.asarray(image) for image in images]
    return done


def _pil(images: Sequence[np.ndarray]) -> list[Image.Image]:
    return [Image.fromarray(image) for image in images]


def _in_parts(function, images: list[Image.Image]) -> list[np.ndarray]:
    return [np.asarray(image) for image in function(images)]


def _row(rows, edits, sources, truths, edited, restored_sources, restored_truths, verdicts, ceiling, restored) -> dict:
    """One edit type's figures; errors are mean absolute differences inside the mask, in 0..255."""
    masks = [edits[i].mask() for i in rows]
    inside = [i for i, mask in zip(rows, masks, strict=True) if mask.any()]
    background = [(i, ~mask) for i, mask in zip(rows, masks, strict=True) if not mask.all()]

    def error(results: list[np.ndarray]) -> float:
        return float(np.mean([np.abs(results[i].astype(float) - truths[i])[edits[i].mask()].mean() for i in inside]))

    def psnr(results: list[np.ndarray]) -> float | None:
        values = [
            10 * np.log10(255**2 / max(np.square(results[i].astype(float) - sources[i])[keep].mean(), 1e-3))
            for i, keep in background
        ]
        return float(np.mean(values)) if values else None

    def followed(found: list[Verdict]) -> float:
        return float(np.mean([found[i].followed for i in rows]))

    return {
        "n": len(rows),
        "error": error(edited),
        "error_copy_source": error(sources),
        "error_reconstructed_truth": error(restored_truths),
        "asked": float(np.mean([verdicts[i].asked for i in rows])),
        "followed": followed(verdicts),
        "followed_truth": followed(ceiling),
        "followed_reconstructed_truth": followed(restored),
        "psnr": psnr(edited),
        "psnr_reconstruction": psnr(restored_sources),
    }


def markdown(rows: dict[str, dict]) -> str:
    """The figures as a Markdown table."""
    titles = (
        "edit", "n", "error in the mask", "copy the source", "tokenizer's floor", "asked-for attribute",
        "instruction followed", "heads on the truth", "heads on the truth, reconstructed", "background PSNR",
        "tokenizer's PSNR",
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


def heads_markdown(accuracy: dict[str, dict[str, float]]) -> str:
    """How often the heads read each attribute right, as a Markdown table."""
    attributes = list(next(iter(accuracy.values())))
    lines = [
        f"| {title} | {' | '.join(f'{100 * right[name]:.1f}%' for name in attributes)} |\n"
        for title, right in accuracy.items()
    ]
    return f"| heads on | {' | '.join(attributes)} |\n{'|---' * (len(attributes) + 1)}|\n" + "".join(lines)


def bar_markdown(rows: dict[str, dict]) -> str:
    """What the miniature has to reach, criterion by criterion, each met or missed."""
    checks = [
        (
            f"{kind}: error in the mask below copying the source",
            rows[kind]["error"],
            "<",
            rows[kind]["error_copy_source"],
        )
        for kind in CLOSER
    ]
    checks += [(f"{kind}: instruction followed", rows[kind]["followed"], ">=", 0.8) for kind in FOLLOWED]
    checks += [
        (f"{kind}: background PSNR within 2 dB of the tokenizer's", row["psnr"], ">=", row["psnr_reconstruction"] - 2)
        for kind, row in rows.items()
        if row["psnr"] is not None
    ]
    lines = [
        f"| {what} | {value:.2f} {sign} {bound:.2f} | {'met' if _holds(value, sign, bound) else 'missed'} |\n"
        for what, value, sign, bound in checks
    ]
    return "| the bar | measured | |\n|---|---|---|\n" + "".join(lines)


def _holds(value: float, sign: str, bound: float) -> bool:
    return value < bound if sign == "<" else value >= bound


def grid(edits, sources, edited, truths, scale: int = 2, examples: int = 2) -> Image.Image:
    """Rows of source, edit, ground truth with the instruction, `examples` for each type of IN_GRID."""
    from matplotlib import pyplot

    chosen = [[i for i, edit in enumerate(edits) if edit.type_id == type_id][:examples] for type_id in IN_GRID]
    figure, axes = pyplot.subplots(
        len(IN_GRID), 3 * examples, figsize=(1.5 * 3 * examples, 1.72 * len(IN_GRID)), dpi=64 * scale
    )
    for line, indices in zip(axes, chosen, strict=True):
        for k, i in enumerate(indices):
            triple = line[3 * k : 3 * k + 3]
            for axis, image in zip(triple, (sources[i], edited[i], truths[i]), strict=True):
                axis.imshow(image, interpolation="nearest")
                axis.set(xticks=[], yticks=[], frame_on=False)
            triple[0].set_title(edits[i].instruction, fontsize=6, pad=2, loc="left")
    for axis, title in zip(axes[-1], ("source", "EditAR", "true result") * examples, strict=True):
        axis.set_xlabel(title, fontsize=6)
    figure.subplots_adjust(0.01, 0.02, 0.99, 0.98, 0.04, 0.16)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    pyplot.close(figure)
    return Image.open(picture).convert("RGB")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(tyro.cli(Arguments))
