"""The world's words as the files of a CLIP tokenizer, in which every word is one token.

CLIP's tokenizer takes a text apart into words and a word into letters, the last of them marked, and then joins pairs of
neighbours as merges.txt lists them. The files are real ones of that format, so `CLIPTokenizer.from_pretrained` reads
them. Words that the world does not have fall apart into pieces that no training text contains: `unused_ids`.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.miniature.world.scene import VOCABULARY

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 40  # tokens of a text with START and END: the longest caption has 37 words
_LAST = "</w>"  # marks a word's last letter


def byte_pairs(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Symbols and merges by which each of `words` becomes one symbol.

    A word is split as the merges so far have it, and what is left is joined from left to right by new ones. They rank
    behind the older merges, and the lowest rank goes first, so the words before stay as they were.
    """
    symbols = dict.fromkeys(letter for word in words for letter in _letters(word))
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        first, *rest = _join(_letters(word), ranks)
        for piece in rest:
            ranks[first, piece] = len(ranks)
            first += piece
            symbols[first] = None
    return list(symbols), list(ranks)


def _letters(word: str) -> list[str]:
    return [*word[:-1], word[-1] + _LAST]


def _join(pieces: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """`pieces` after the merges in `ranks`, the lowest rank first."""
    while True:
        pairs = list(itertools.pairwise(pieces))
        known = [pair for pair in pairs if pair in ranks]
        if not known:
            return pieces
        at = pairs.index(min(known, key=ranks.__getitem__))
        pieces = [*pieces[:at], pieces[at] + pieces[at + 1], *pieces[at + 2 :]]


def vocabulary() -> dict[str, int]:
    """Symbols to ids: letters, what merges make of them, START and END, in CLIP's order."""
    symbols, _ = byte_pairs(VOCABULARY)
    return {symbol: number for number, symbol in enumerate([*symbols, START, END])}


def unused_ids() -> list[int]:
    """Ids that no text of the world contains: letters and parts of words."""
    used = {START, END, *(word + _LAST for word in VOCABULARY)}
    return [number for symbol, number in vocabulary().items() if symbol not in used]


def write_tokenizer(folder: Path) -> None:
    """Write the files of Stable Diffusion's tokenizer folder, as `CLIPTokenizer.from_pretrained` reads them."""
    _, merges = byte_pairs(VOCABULARY)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, **special}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(), indent=0, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
