"""What do the miniature's diffusion models draw? Held-out scenes from their captions and maps, read by the heads.

    python -m benchmarks.miniature.evaluate.diffusion [--guidance 2 4 7.5] [--count 48] [--out runs/diffusion-samples]

Per model: how often the attribute heads read what the scene has at the scene's own places, the image-text similarity
(the true pictures' in the last line), and the mean error against the true picture in grey levels, which caption and map
nearly determine. The text-to-image model chooses its own places, so only background and similarity count for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from diffusers import (
    ControlNetModel,
    DiffusionPipeline,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    T2IAdapter,
)
from PIL import Image

from benchmarks.miniature import WEIGHTS
from benchmarks.miniature.evaluate.backbones import load_backbones, load_perception
from benchmarks.miniature.evaluate.edit_scores import head_accuracy
from benchmarks.miniature.train.diffusion_networks import ADAPTER_CHANNELS
from benchmarks.miniature.train.diffusion_training import CONTROLS
from benchmarks.miniature.world.embedded import held_out_scenes
from benchmarks.miniature.world.render import condition, render, to_tensor
from benchmarks.miniature.world.scene import Scene, caption

SEED = 78  # other scenes than the embedded sets'
IN_GRID = 8
_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Example: python -m benchmarks.miniature.evaluate.diffusion --models text-to-image --count 8

    Sample the miniature's diffusion models on held-out scenes.
    """

    models: tuple[str, ...] = ("text-to-image", *CONTROLS)
    """Which to sample."""
    guidance: tuple[float, ...] = (2.0, 4.0, 7.5)
    """Guidance values to measure."""
    steps: int = 20
    """DDIM steps."""
    count: int = 48
    """Scenes."""
    weights: Path = WEIGHTS
    """Folder with diffusion/ and perception.safetensors."""
    out: Path = Path("runs") / "diffusion-samples"
    """Folder for a grid of samples per guidance value."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def main(arguments: Arguments) -> None:
    """Print a line per model and guidance value; write the grids: truth, then each model with its map before it."""
    scenes = held_out_scenes("depth", arguments.count, seed=SEED)
    truths = [render(scene) for scene in scenes]
    measure = _measure(arguments.weights / "perception.safetensors", scenes, truths)
    columns: dict[float, list[list[np.ndarray]]] = {guidance: [truths] for guidance in arguments.guidance}
    for model in arguments.models:
        pipeline = load(arguments.weights / "diffusion", model, arguments.device)
        maps = [] if model == "text-to-image" else [condition(scene, model.rsplit("-", 1)[1]) for scene in scenes]
        for guidance in arguments.guidance:
            images = sample(pipeline, model, scenes, guidance, arguments.steps)
            print(f"{model}, guidance {guidance:g}: {measure(images)}", flush=True)
            columns[guidance] += [maps, images] if maps else [images]
    print(f"true pictures: {measure(truths)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for guidance, shown in columns.items():
        rows = [np.concatenate([column[i] for column in shown], axis=1) for i in range(min(IN_GRID, len(scenes)))]
        Image.fromarray(np.concatenate(rows)).save(arguments.out / f"guidance-{guidance:g}.png")


def load(folder: Path, model: str, device: str) -> DiffusionPipeline:
    """The pipeline of text-to-image or one of CONTROLS from the exported folders."""
    if model == "text-to-image":
        pipeline = StableDiffusionPipeline.from_pretrained(folder)
    elif model.startswith("controlnet"):
        control = ControlNetModel.from_pretrained(folder / model)
        pipeline = StableDiffusionControlNetPipeline.from_pretrained(folder, controlnet=control)
    else:
        adapter = T2IAdapter.from_pretrained(folder / model)
        pipeline = StableDiffusionAdapterPipeline.from_pretrained(folder, adapter=adapter)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def sample(
    pipeline: DiffusionPipeline, model: str, scenes: list[Scene], guidance: float, steps: int
) -> list[np.ndarray]:
    """A picture of each scene, uint8 (64, 64, 3); the noise of each from its own seed."""
    images: list[np.ndarray] = []
    for start in range(0, len(scenes), _BATCH):
        part = scenes[start : start + _BATCH]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        extra: dict[str, Any] = {} if model == "text-to-image" else {"image": _maps(model, part)}
        answer = pipeline(
            [caption(scene) for scene in part], num_inference_steps=steps, guidance_scale=guidance,
            generator=generators, **extra,
        )  # fmt: skip
        images += [np.asarray(image.convert("RGB")) for image in answer.images]
    return images


def _maps(model: str, scenes: list[Scene]) -> list[Image.Image]:
    kind, task = model.rsplit("-", 1)
    maps = [Image.fromarray(condition(scene, task)) for scene in scenes]
    return [each.convert("L") for each in maps] if kind == "t2i-adapter" and ADAPTER_CHANNELS[task] == 1 else maps


def _measure(perception: Path, scenes: list[Scene], truths: list[np.ndarray]) -> Callable[[list[np.ndarray]], str]:
    network, _ = load_perception(perception)
    clip = load_backbones(perception).clip
    texts = clip.text_embedding([caption(scene) for scene in scenes])

    @torch.inference_mode()
    def measure(images: list[np.ndarray]) -> str:
        tensor = to_tensor(images)
        read = ", ".join(f"{name} {share:.0%}" for name, share in head_accuracy(network, tensor, scenes).items())
        similarity = (clip.image_embedding((tensor + 1) / 2) * texts).sum(1).mean()
        error = np.abs(np.stack(images).astype(float) - np.stack(truths)).mean()
        return f"{read}; similarity {similarity:.3f}; error {error:.1f}"

    return measure


if __name__ == "__main__":
    main(tyro.cli(Arguments))
