"""The training set of the miniature's EditAR as tokens: made shard by shard, ahead of the training that reads them."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.miniature.train.shards import Rows, open_shard, shard_path, write_missing
from benchmarks.miniature.world.edits import Edit, random_edit_of
from benchmarks.miniature.world.render import condition, render, through
from benchmarks.miniature.world.scene import CELL, GRID, Scene, caption, choose, random_scene
from editar.model.text import WordTextEncoder
from editar.model.vq import VQModel
from editar.prompts import TASKS, translation_prompt

SCENES_PER_SHARD = 1024
EDITS_PER_SCENE = 4
TASK_NAMES = ("edit", *TASKS)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What shards are made of: the seed, the edits' type ids (one is drawn uniformly), of how many things a scene is
    (None: as the world draws it), and whether each scene is also translated from a map of it."""

    seed: int
    types: str
    things: tuple[int, ...] | None = None
    translations: bool = True


# The types that the miniature's bar is about come twice.
GENERAL = Mixture(seed=0, types="122334566778899")
CROWDED = Mixture(seed=1, types="12233456677889", things=(2, 3))  # whose instructions tell things apart
HARD = Mixture(seed=2, types="122223345666778889", things=(1, 2, 3))  # what is learned last comes oftener


def scenes_with_edits(rng: np.random.Generator, mixture: Mixture, count: int) -> Iterator[tuple[Scene, list[Edit]]]:
    """`count` scenes, less the held-out ones, and EDITS_PER_SCENE edits of each, again without the held-out ones."""
    for _ in range(count):
        scene = random_scene(rng, choose(rng, mixture.things) if mixture.things else None)
        if not scene.held_out:
            edits = [random_edit_of(rng, scene, mixture.types) for _ in range(EDITS_PER_SCENE)]
            yield scene, [edit for edit in edits if not edit.held_out]


@dataclass(frozen=True, kw_only=True)
class Sequences(Rows):
    """Token sequences: condition and target (n, 64), words (n, 40), changed cells (n, 64) bool, task (n,)."""

    condition: Tensor
    target: Tensor
    words: Tensor
    changed: Tensor
    task: Tensor

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as uint16."""
        return {f.name: getattr(self, f.name).numpy().astype(np.uint16) for f in fields(self)}


def draw_pairs(mixture: Mixture, index: int, scenes: int) -> tuple[list[np.ndarray], dict[str, list]]:
    """Images, and of each pair condition and target (rows among them), prompt, changed cells and task.

    Each of the scenes gives one source, four edits of it and, if the mixture has them, one translation; none of them is
    held out.
    """
    rng = np.random.default_rng((mixture.seed, 2, index))
    images: list[np.ndarray] = []
    rows: dict[str, list] = defaultdict(list)

    def add(source: int, target: int, prompt: str, changed: np.ndarray, task: str) -> None:
        for name, value in (("condition", source), ("target", target), ("prompt", prompt), ("changed", changed)):
            rows[name].append(value)
        rows["task"].append(TASK_NAMES.index(task))

    for scene, edits in scenes_with_edits(rng, mixture, scenes):
        source = len(images)
        images.append(render(scene))
        for edit in edits:
            image = render(edit.target)
            differs = (image != images[source]).any(-1).reshape(GRID, CELL, GRID, CELL).any((1, 3)).ravel()
            images.append(image)
            add(source, len(images) - 1, edit.instruction, differs, "edit")
        if mixture.translations:
            task = TASKS[rng.integers(len(TASKS))]
            images.append(condition(scene, task))
            add(len(images) - 1, source, translation_prompt(task, caption(scene)), np.ones(GRID * GRID, bool), task)
    return images, rows


def tokenised(
    tokenizer: VQModel, text: WordTextEncoder, images: list[np.ndarray], rows: Mapping[str, list]
) -> Sequences:
    """What `draw_pairs` gave, as sequences."""
    tokens = encode(tokenizer, images)
    return Sequences(
        condition=tokens[rows["condition"]],
        target=tokens[rows["target"]],
        words=text.tokenize(rows["prompt"]),
        changed=torch.from_numpy(np.stack(rows["changed"])),
        task=torch.tensor(rows["task"]),
    )


@torch.inference_mode()
def encode(tokenizer: VQModel, images: list[np.ndarray]) -> Tensor:
    """uint8 images -> token indices (n, 64)."""
    device = next(tokenizer.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu"):
        return through(tokenizer.encode, images, device)


def make_shards(
    tokenizer: VQModel,
    text: WordTextEncoder,
    mixture: Mixture,
    count: int,
    folder: Path,
    scenes: int = SCENES_PER_SHARD,
) -> None:
    """Write the missing ones of `count` shards."""
    write_missing(folder, count, lambda index: tokenised(tokenizer, text, *draw_pairs(mixture, index, scenes)).arrays())


class Shards:
    """Reads shards as training comes to need them; one that is still being made is waited for."""

    def __init__(self, folder: Path, count: int, steps_per_shard: int) -> None:
        self.folder, self.count, self.steps_per_shard = folder, count, steps_per_shard
        self.loaded: list[Sequences] = []

    def batch(self, seed: int, step: int, size: int) -> Sequences:
        """`size` sequences of the shards open at this step: a function of (seed, step), however fast they were made."""
        opened = min(self.count, 2 + step // self.steps_per_shard)
        while len(self.loaded) < opened:
            self.loaded.append(self._load(shard_path(self.folder, len(self.loaded))))
        rng = np.random.default_rng((seed, 3, step))
        which = rng.integers(opened, size=size)
        parts = [
            self.loaded[k].pick(torch.from_numpy(rng.integers(len(self.loaded[k].task), size=int((which == k).sum()))))
            for k in np.unique(which)
        ]
        return Sequences(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Sequences)})

    def _load(self, path: Path) -> Sequences:
        while not path.exists():
            time.sleep(1)
        return Sequences.join([open_shard(path)])
