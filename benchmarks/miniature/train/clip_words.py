"""The world's words as a CLIP tokenizer, committed with the weights, in which every word is one token.

CLIP's tokenizer takes a text apart into words and a word into letters, the last of them marked, and then joins pairs of
neighbours as merges.txt lists them: here those of one word of `scene.VOCABULARY` after the other, from left to right.
Words that the world does not have fall apart into pieces that no training text contains: `unused_ids`.
"""

from collections.abc import Sequence
from functools import cache

from torch import Tensor
from transformers import CLIPTokenizer

from benchmarks.miniature import WEIGHTS
from benchmarks.miniature.world.scene import VOCABULARY

TOKENIZER = WEIGHTS / "diffusion" / "tokenizer"


@cache
def clip_tokenizer() -> CLIPTokenizer:
    """It pads and cuts to 40 tokens, start and end included: the longest caption has 37 words."""
    return CLIPTokenizer.from_pretrained(TOKENIZER)


def read_words(captions: Sequence[str]) -> Tensor:
    """Captions -> token ids (n, 40), as the pipelines make them."""
    return clip_tokenizer()(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids


def unused_ids() -> list[int]:
    """Ids that no text of the world contains: letters and parts of words."""
    tokenizer = clip_tokenizer()
    used = {tokenizer.bos_token, tokenizer.eos_token, *(f"{word}</w>" for word in VOCABULARY)}
    return [number for symbol, number in tokenizer.get_vocab().items() if symbol not in used]
