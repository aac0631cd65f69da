"""A tokenizer.json like LLaVA's: LLaMA's ids for the words of MGIE's prompt, and other pieces in all other places.

Written from what transformers 4.30.2 makes of LLaMA's tokenizer.model, and not by our code: byte fallback, a "▁" before
each piece of text between special tokens, tokens added later stored as normalized.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIZE = 32000  # of LLaMA's vocabulary
# The words of the prompt for the instruction "make it red", and LLaMA's ids of them.
_PROMPT = (
    "▁A ▁chat ▁between ▁a ▁curious ▁user ▁and ▁an ▁artificial ▁intelligence ▁assistant . ▁The ▁assistant ▁gives "
    "▁helpful , ▁detailed , ▁and ▁pol ite ▁answers ▁to ▁the ▁user ' s ▁questions . ▁US ER : ▁what ▁will ▁this ▁image "
    "▁be ▁like ▁if ▁' make ▁it ▁red ' ▁ ▁A SS IST ANT :"
)
WORDS = _PROMPT.split()
IDS = (
    *(319, 13563, 1546, 263, 12758, 1404, 322, 385, 23116, 21082, 20255, 29889, 450, 20255, 4076, 8444, 29892, 13173),
    *(29892, 322, 1248, 568, 6089, 304, 278, 1404, 29915, 29879, 5155, 29889, 3148, 1001, 29901, 825, 674, 445, 1967),
    *(367, 763, 565, 525, 5675, 372, 2654, 29915, 29871, 319, 1799, 9047, 13566, 29901),
)
LLAVA_TOKENS = ("<im_patch>", "<im_start>", "<im_end>")


def _pairs(word: str) -> Iterator[tuple[str, str]]:
    """The merges that put a word together from its left."""
    yield from ((word[:end], word[end]) for end in range(1, len(word)))


def write_tokenizer(path: Path, added: tuple[str, ...] = LLAVA_TOKENS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tokenizer_json(added)))
    return path


def tokenizer_json(added: tuple[str, ...] = LLAVA_TOKENS) -> dict[str, Any]:
    known = dict(zip(WORDS, IDS, strict=True))
    special = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary = known | special | {f"<0x{byte:02X}>": byte + 3 for byte in range(256)}
    words = sorted(known, key=lambda word: not word.startswith("▁"))  # whole words before the parts of words
    merges = list(dict.fromkeys(pair for word in words for pair in _pairs(word)))
    free = iter(sorted(set(range(SIZE)) - set(vocabulary.values())))
    pieces = [*(left + right for left, right in merges), *map(chr, range(33, 127)), "▁"]
    for piece in pieces:
        if piece not in vocabulary:
            vocabulary[piece] = next(free)
    vocabulary |= {f"<piece {number}>": number for number in free}
    assert sorted(vocabulary.values()) == list(range(SIZE))
    tokens = special | {token: SIZE + number for number, token in enumerate(added)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": True, "special": token in special,
            }
            for token, number in tokens.items()
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "vocab": vocabulary,
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }  # fmt: skip
