"""The training set of the miniature's diffusion: latents, captions and condition maps, made shard by shard."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from benchmarks.miniature.train.clip_words import write_tokenizer
from benchmarks.miniature.train.shards import open_shards, write_missing
from benchmarks.miniature.world.batches import TASKS, condition, to_tensor, training_edits
from benchmarks.miniature.world.captions import caption
from benchmarks.miniature.world.render import render
from benchmarks.miniature.world.scene import Scene

SEED = 4
MAP_CHANNELS = {"depth": 1, "canny": 1, "segmentation": 3}
BATCH = 64  # images encoded at a time


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """n scenes: latents (n, C, 8, 8), words (n, LENGTH), and the maps (n, channels, 64, 64) of one task or None.

    On file and in a shard they are float16, int16 and uint8; `pick` gives float32, int64 and float32 in [0, 1].
    """

    latents: Tensor
    words: Tensor
    maps: Tensor | None = None

    def pick(self, rows: Tensor, device: str) -> "Encoded":
        """Some rows, as the networks take them."""
        return Encoded(
            latents=self.latents[rows].to(device).float(),
            words=self.words[rows].to(device).long(),
            maps=None if self.maps is None else self.maps[rows].to(device).float() / 255,
        )


def training_scenes(seed: int, step: int) -> Iterator[Scene]:
    """Endless scenes, none held out, of all kinds that edits lead from and to; equal for equal (seed, step)."""
    rng = np.random.default_rng((seed, step % 2**32, 4))
    for edit in training_edits(seed, step):
        yield edit.target if rng.random() < 0.5 else edit.source


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The world's CLIP tokenizer, whose files are written to `folder`."""
    write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def read_words(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Captions -> token ids (n, LENGTH), as the pipelines make them."""
    return tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids


@torch.inference_mode()
def encode(vae: AutoencoderKL, pictures: Sequence[np.ndarray]) -> Tensor:
    """uint8 pictures -> the means of their latents, (n, C, 8, 8) float32."""
    device = vae.device
    with torch.autocast(device.type, torch.bfloat16):
        parts = [
            vae.encode(to_tensor(list(pictures[i : i + BATCH])).to(device)).latent_dist.mean.float().cpu()
            for i in range(0, len(pictures), BATCH)
        ]
    return torch.cat(parts)


def make_shard(vae: AutoencoderKL, tokenizer: CLIPTokenizer, scenes: Sequence[Scene]) -> dict[str, Any]:
    """The arrays that a shard holds of `scenes`: latents, words and the maps of every task."""
    arrays: dict[str, Any] = {
        "latents": encode(vae, [render(scene) for scene in scenes]).half().numpy(),
        "words": read_words(tokenizer, [caption(scene) for scene in scenes]).numpy().astype(np.int16),
    }
    for task in TASKS:
        maps = np.stack([condition(scene, task)[..., : MAP_CHANNELS[task]] for scene in scenes])
        arrays[task] = np.ascontiguousarray(maps.transpose(0, 3, 1, 2))
    return arrays


def make_shards(vae: AutoencoderKL, folder: Path, count: int, scenes: int) -> None:
    """Write the missing ones of `count` shards of `scenes` training scenes."""
    tokenizer = load_tokenizer(folder / "tokenizer")

    def make(index: int) -> dict[str, Any]:
        return make_shard(vae, tokenizer, list(itertools.islice(training_scenes(SEED, index), scenes)))

    write_missing(folder, count, make)


def read_shards(folder: Path, count: int, task: str | None = None) -> Encoded:
    """All scenes of `count` shards, with the maps of `task` if there is one.

    Raises FileNotFoundError that names the missing ones.
    """
    return join(open_shards(folder, count), task)


def join(shards: Sequence[Mapping[str, np.ndarray]], task: str | None = None) -> Encoded:
    """Shards as one, with the maps of `task` if there is one."""

    def joined(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([shard[name] for shard in shards]))

    return Encoded(latents=joined("latents"), words=joined("words"), maps=joined(task) if task else None)
