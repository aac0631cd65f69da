"""The training set of the miniature's InstructPix2Pix: latents before and after an edit, and its instruction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from benchmarks.miniature.train.latents import encode, load_tokenizer, read_words
from benchmarks.miniature.train.shards import Rows, open_shards, write_missing
from benchmarks.miniature.train.tokens import GENERAL, scenes_with_edits
from benchmarks.miniature.world.edits import Edit
from benchmarks.miniature.world.render import render
from benchmarks.miniature.world.scene import Scene

SEED = 5


@dataclass(frozen=True, kw_only=True)
class Pairs(Rows):
    """n edits: latents of source and target (n, C, 8, 8), words of the instruction (n, LENGTH).

    On file and in a shard they are float16 and int16; `pick` gives float32 and int64.
    """

    source: Tensor
    target: Tensor
    words: Tensor


def make_pairs(
    vae: AutoencoderKL, tokenizer: CLIPTokenizer, edited: Sequence[tuple[Scene, Sequence[Edit]]]
) -> dict[str, np.ndarray]:
    """The arrays that a shard holds of scenes and their edits, whose pictures are encoded once each."""
    images: list[np.ndarray] = []
    sources: list[int] = []
    targets: list[int] = []
    for scene, edits in edited:
        sources += [len(images)] * len(edits)
        targets += range(len(images) + 1, len(images) + 1 + len(edits))
        images += [render(scene), *(render(edit.target) for edit in edits)]
    latents = encode(vae, images).half().numpy()
    words = read_words(tokenizer, [edit.instruction for _, edits in edited for edit in edits])
    return {"source": latents[sources], "target": latents[targets], "words": words.numpy().astype(np.int16)}


def make_pair_shards(vae: AutoencoderKL, folder: Path, count: int, scenes: int) -> None:
    """Write the missing ones of `count` shards of `scenes` scenes and their edits, in EditAR's mixture of edit types
    and none of them held out."""
    tokenizer = load_tokenizer(folder / "tokenizer")

    def make(index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((SEED, index))
        return make_pairs(vae, tokenizer, list(scenes_with_edits(rng, GENERAL, scenes)))

    write_missing(folder, count, make)


def read_pairs(folder: Path, count: int) -> Pairs:
    """All pairs of `count` shards. Raises FileNotFoundError that names the missing ones."""
    return Pairs.join(open_shards(folder, count))
