"""Does the miniature's EditAR edit? Measured on held-out records with the world's own ground truth.

    python -m benchmarks.miniature.evaluate [--guidance 2.0 3.0] [--out DIR]

What is measured is in `edit_scores.py`; the bar that the miniature has to reach is here.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from baselines.editar import EditARMethod
from baselines.method import MethodContext
from benchmarks.miniature import WEIGHTS
from benchmarks.miniature.evaluate.edit_scores import HeldOut, markdown, markdown_table
from benchmarks.miniature.world.scene import SIDE
from editar.pipeline import EditAR

COUNTS = {"1": 20, "2": 80, "3": 80, "4": 20, "5": 20, "6": 80, "7": 80, "8": 80, "9": 20}
SEED = 77  # other records than the embedded PIE-Bench's
FOLLOWED = 0.8  # the bar of every type


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Example: python -m benchmarks.miniature.evaluate --guidance 1 1.15 3

    Measure the miniature on held-out edits.
    """

    guidance: tuple[float, ...] = ()
    """Guidance values to measure; none: the checkpoint's own."""
    out: Path = Path(__file__).parent / "results"
    """Folder for results.json, results.md and grid.png."""


def main(arguments: Arguments) -> None:
    """Measure at each guidance value; write the table of the last one and the grid."""
    model = EditAR.from_pretrained(WEIGHTS / "editar")
    held_out = HeldOut.draw(COUNTS, SEED, model.reconstruct)
    context = MethodContext(suite="miniature", weights=WEIGHTS, device="cpu", image_side=SIDE)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict] = {}
    for guidance in arguments.guidance or (model.sampling.guidance,):
        method = EditARMethod(context, guidance)
        method.load()
        edited = held_out.edited(method)
        rows = results[f"{guidance:g}"] = held_out.scores(edited)
        print(f"guidance {guidance:g}, n = {len(edited)}\n{markdown(rows, 'tokenizer')}")
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = report(guidance, rows)
    print(text)
    (arguments.out / "results.md").write_text(text)
    held_out.grid(edited, "EditAR").save(arguments.out / "grid.png")


def report(guidance: float, rows: dict[str, dict]) -> str:
    """results.md: the figures at one guidance value, and the bar."""
    tables = [markdown(rows, "tokenizer"), bar_markdown(rows)]
    return "\n".join([f"Guidance {guidance:g}, {rows['all']['n']} held-out edits.\n", *tables])


def bar_markdown(rows: dict[str, dict]) -> str:
    """What the miniature has to reach, criterion by criterion, each met or missed."""
    lines = []

    def check(what: str, value: float, sign: str, bound: float, interval: str = "") -> None:
        holds = value < bound if sign == "<" else value >= bound
        lines.append([what, f"{value:.2f}{interval} {sign} {bound:.2f}", "met" if holds else "missed"])

    for kind, row in rows.items():
        check(f"{kind}: error in the mask below copying the source", row["error"], "<", row["error_copy_source"])
    for kind, row in rows.items():
        for name, title in (("followed", "instruction followed"), ("all_right", "all right")):
            interval = f" [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
            check(f"{kind}: {title}", row[name], ">=", FOLLOWED, interval)
    for kind, row in rows.items():
        if row["psnr"] is not None:
            bound = row["psnr_reconstruction"] - 2
            check(f"{kind}: background PSNR within 2 dB of the tokenizer's", row["psnr"], ">=", bound)
    return markdown_table(["the bar", "measured", ""], lines)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(tyro.cli(Arguments, prog="python -m benchmarks.miniature.evaluate"))
