"""How is the miniature's InstructPix2Pix best guided? Held-out edits at several settings of its sampler.

    python -m benchmarks.miniature.evaluate.instruct [--text 3 5 7.5] [--image 1 1.5 2] [--steps 50] [--count 8]

What is measured is in `edit_scores.py`, on other edits than the embedded PIE-Bench's and `__main__.py`'s. The edits are
made by the row of the tables, its numbers of steps and scales of guidance replaced.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from diffusers import AutoencoderKL
from PIL import Image

from baselines.instruct_pix2pix import INSTRUCT_PIX2PIX, InstructedDiffusion
from baselines.method import MethodContext
from benchmarks.miniature import WEIGHTS
from benchmarks.miniature.evaluate.edit_scores import HeldOut, markdown, pil
from benchmarks.miniature.world.edits import KINDS
from benchmarks.miniature.world.render import through
from benchmarks.miniature.world.scene import SIDE

SEED = 79


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Example: python -m benchmarks.miniature.evaluate.instruct --text 3 --image 1.5

    Sample the miniature's InstructPix2Pix on held-out edits.
    """

    text: tuple[float, ...] = (3.0, 5.0, 7.5)
    """Scales of the guidance by the text."""
    image: tuple[float, ...] = (1.0, 1.5, 2.0)
    """Scales of the guidance by the image."""
    steps: tuple[int, ...] = (50,)
    """Numbers of sampling steps."""
    count: int = 8
    """Edits of each type."""
    weights: Path = WEIGHTS
    """Folder with diffusion/."""
    out: Path = Path("runs") / "instruct-samples"
    """Folder for results.json and a grid of samples per setting."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def main(arguments: Arguments) -> None:
    """Print a table per setting; write the figures and the grids."""
    vae = AutoencoderKL.from_pretrained(arguments.weights / "diffusion" / "vae").eval()
    counts = {type_id: arguments.count for type_id in KINDS if type_id != "0"}
    held_out = HeldOut.draw(counts, SEED, lambda images: _restore(vae, images))
    context = MethodContext(suite="miniature", weights=arguments.weights, device=arguments.device, image_side=SIDE)
    results: dict[str, dict] = {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for steps, by_text, by_image in itertools.product(arguments.steps, arguments.text, arguments.image):
        row = replace(INSTRUCT_PIX2PIX, steps=steps, by_text=by_text, by_image=by_image)
        method = InstructedDiffusion(context, row)
        method.load()
        edited = held_out.edited(method)
        name = f"steps-{steps}-text-{by_text:g}-image-{by_image:g}"
        results[name] = held_out.scores(edited)
        print(f"{name}\n{markdown(results[name], 'autoencoder')}", flush=True)
        held_out.grid(edited, row.card.published_as).save(arguments.out / f"{name}.png")
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")


@torch.inference_mode()
def _restore(vae: AutoencoderKL, images: Sequence[Image.Image]) -> list[Image.Image]:
    pixels = [np.asarray(image) for image in images]
    restored = through(lambda part: vae.decode(vae.encode(part).latent_dist.mean).sample, pixels, "cpu")
    restored = restored.add(1).mul(127.5).round().clamp(0, 255).byte()
    return pil(list(restored.permute(0, 2, 3, 1).numpy()))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
