"""The training sets of the miniature's diffusion, made shard by shard: latents, captions and condition maps of scenes;
latents before and after an edit, and its instruction."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from benchmarks.miniature.train.clip_words import read_words
from benchmarks.miniature.train.shards import Rows, open_shards, write_missing
from benchmarks.miniature.train.tokens import GENERAL, scenes_with_edits
from benchmarks.miniature.world.edits import Edit, training_edits
from benchmarks.miniature.world.render import condition, render, through
from benchmarks.miniature.world.scene import Scene, caption
from editar.prompts import TASKS

SEED, PAIRS_SEED = 4, 5
MAP_CHANNELS = {"depth": 1, "canny": 1, "segmentation": 3}


@dataclass(frozen=True, kw_only=True)
class Encoded(Rows):
    """n scenes: latents (n, C, 8, 8), words (n, L), and the maps (n, channels, 64, 64) of one task or None.

    On file and in a shard they are float16, int16 and uint8; `pick` gives float32, int64 and float32 in [0, 1].
    """

    latents: Tensor
    words: Tensor
    maps: Tensor | None = None


def training_scenes(seed: int, step: int) -> Iterator[Scene]:
    """Endless scenes, none held out, of all kinds that edits lead from and to; equal for equal (seed, step)."""
    rng = np.random.default_rng((seed, step % 2**32, 4))
    for edit in training_edits(seed, step):
        yield edit.target if rng.random() < 0.5 else edit.source


@torch.inference_mode()
def encode(vae: AutoencoderKL, pictures: Sequence[np.ndarray]) -> Tensor:
    """uint8 pictures -> the means of their latents, (n, C, 8, 8) float32."""
    with torch.autocast(vae.device.type, torch.bfloat16):
        return through(lambda images: vae.encode(images).latent_dist.mean.float(), pictures, vae.device)


def make_shard(vae: AutoencoderKL, scenes: Sequence[Scene]) -> dict[str, Any]:
    """The arrays that a shard holds of `scenes`: latents, words and the maps of every task."""
    arrays: dict[str, Any] = {
        "latents": encode(vae, [render(scene) for scene in scenes]).half().numpy(),
        "words": read_words([caption(scene) for scene in scenes]).numpy().astype(np.int16),
    }
    for task in TASKS:
        maps = np.stack([condition(scene, task)[..., : MAP_CHANNELS[task]] for scene in scenes])
        arrays[task] = np.ascontiguousarray(maps.transpose(0, 3, 1, 2))
    return arrays


def make_shards(vae: AutoencoderKL, folder: Path, count: int, scenes: int) -> None:
    """Write the missing ones of `count` shards of `scenes` training scenes."""

    def make(index: int) -> dict[str, Any]:
        return make_shard(vae, list(itertools.islice(training_scenes(SEED, index), scenes)))

    write_missing(folder, count, make)


def read_shards(folder: Path, count: int, task: str | None = None) -> Encoded:
    """All scenes of `count` shards, with the maps of `task` if there is one.

    Raises FileNotFoundError that names the missing ones.
    """
    return Encoded.join(open_shards(folder, count), maps=task)


@dataclass(frozen=True, kw_only=True)
class Pairs(Rows):
    """n edits: latents of source and target (n, C, 8, 8), words of the instruction (n, L).

    On file and in a shard they are float16 and int16; `pick` gives float32 and int64.
    """

    source: Tensor
    target: Tensor
    words: Tensor


def make_pairs(vae: AutoencoderKL, edited: Sequence[tuple[Scene, Sequence[Edit]]]) -> dict[str, np.ndarray]:
    """The arrays that a shard holds of scenes and their edits, whose pictures are encoded once each."""
    images: list[np.ndarray] = []
    sources: list[int] = []
    targets: list[int] = []
    for scene, edits in edited:
        sources += [len(images)] * len(edits)
        targets += range(len(images) + 1, len(images) + 1 + len(edits))
        images += [render(scene), *(render(edit.target) for edit in edits)]
    latents = encode(vae, images).half().numpy()
    words = read_words([edit.instruction for _, edits in edited for edit in edits])
    return {"source": latents[sources], "target": latents[targets], "words": words.numpy().astype(np.int16)}


def make_pair_shards(vae: AutoencoderKL, folder: Path, count: int, scenes: int) -> None:
    """Write the missing ones of `count` shards of `scenes` scenes and their edits, in EditAR's mixture of edit types
    and none of them held out."""

    def make(index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((PAIRS_SEED, index))
        return make_pairs(vae, list(scenes_with_edits(rng, GENERAL, scenes)))

    write_missing(folder, count, make)


def read_pairs(folder: Path, count: int) -> Pairs:
    """All pairs of `count` shards. Raises FileNotFoundError that names the missing ones."""
    return Pairs.join(open_shards(folder, count))
