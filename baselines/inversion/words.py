"""Which tokens of a prompt belong to which word, and which tokens of two prompts belong together.

Words are what stands between white space, as in Prompt-to-Prompt's code: "cat," is a word other than "cat". Token
positions count from the start token, 0.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class WordError(ValueError):
    """A word or prompt that can't be aligned; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """ids: with start and end token, cut to the model's length. positions: of each word's tokens, none if cut off."""

    ids: tuple[int, ...]
    words: tuple[str, ...]
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class WordMap:
    """How the attention to a target prompt's tokens follows from that to the source's.

    mix: (tokens, tokens), the share of source token i in target token j; keep: (tokens,), the share of what target
    token j has itself.
    """

    mix: Tensor
    keep: Tensor


def read_prompt(tokenizer: Any, text: str) -> Prompt:
    """Words and tokens of a prompt. Raises WordError where a tokenizer joins words."""
    ids = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length).input_ids
    words = text.split()
    pieces = tokenizer(words, add_special_tokens=False).input_ids if words else []
    joined = [token for piece in pieces for token in piece]
    if joined[: len(ids) - 2] != ids[1:-1]:
        raise WordError(f"the tokens of {text!r} are not those of its words; the words can't be told apart")
    positions, start = [], 1
    for piece in pieces:
        positions.append(tuple(range(start, min(start + len(piece), len(ids) - 1))))
        start += len(piece)
    return Prompt(ids=tuple(ids), words=tuple(words), positions=tuple(positions))


def find_word(prompt: Prompt, word: str) -> tuple[int, ...]:
    """The positions of all tokens of all occurrences of a word. Raises WordError where there is none.

    Where no word is equal, case and the punctuation around words are left out of account. The published code would go
    on with nothing found, which in the end returns the source image.
    """
    for form in (str, _bare):
        matches = [spot for spot, each in zip(prompt.positions, prompt.words, strict=True) if form(each) == form(word)]
        if found := tuple(position for spot in matches for position in spot):
            return found
    raise WordError(f"the word {word!r} is not in the prompt {' '.join(prompt.words)!r}, or behind its last token")


def _bare(word: str) -> str:
    return word.casefold().strip(string.punctuation) or word


def refinement(source: Prompt, target: Prompt, tokens: int) -> WordMap:
    """For prompts of any length: tokens that both have, in order, take the source's attention; others keep their own.

    Behind the target's end token each position takes the source's same one.
    """
    mix, keep = torch.zeros(tokens, tokens), torch.zeros(tokens)
    for j, i in enumerate(_partners(source.ids, target.ids)):
        if i is None:
            keep[j] = 1
        else:
            mix[i, j] = 1
    rest = torch.arange(len(target.ids), tokens)
    mix[rest, rest] = 1
    return WordMap(mix=mix, keep=keep)


def _partners(source: Sequence[int], target: Sequence[int]) -> list[int | None]:
    """For each token of the target its partner in the source, by a longest common subsequence.

    Of several the walk from the end takes that with the earliest matches, as Prompt-to-Prompt's aligner does (match 1,
    mismatch -1, gap 0; it prefers a target token without partner, then a source token without).
    """
    length = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, one in enumerate(source, start=1):
        for j, other in enumerate(target, start=1):
            common = length[i - 1][j - 1] + 1 if one == other else 0
            length[i][j] = max(length[i][j - 1], length[i - 1][j], common)
    partners: list[int | None] = [None] * len(target)
    i, j = len(source), len(target)
    while i and j:
        if length[i][j] == length[i][j - 1]:
            j -= 1
        elif length[i][j] == length[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            partners[j] = i
    return partners


def replacement(source: Prompt, target: Prompt, tokens: int) -> WordMap:
    """For prompts of as many words: a word's tokens take the attention of the word in its place.

    Raises WordError for another number of words. As in Prompt-to-Prompt's code positions behind the last exchanged word
    take the source's same ones, even where the words have different numbers of tokens.
    """
    if len(source.words) != len(target.words):
        raise WordError(
            f"{' '.join(source.words)!r} has {len(source.words)} words and {' '.join(target.words)!r} "
            f"{len(target.words)}; words can be replaced only one by one: use refine"
        )
    mix = torch.zeros(tokens, tokens)
    i = j = 0
    for number, spots in enumerate(zip(source.positions, target.positions, strict=True)):
        old, new = map(list, spots)
        if source.words[number] == target.words[number] or not old or not new:
            continue
        for _ in range(old[0] - i):
            mix[i, j] = 1
            i, j = i + 1, j + 1
        if len(old) == len(new):
            mix[old, new] = 1
        else:
            mix[old[0] : old[-1] + 1, new] = 1 / len(new)
        i, j = i + len(old), j + len(new)
    rest = torch.arange(j, tokens - max(i - j, 0))
    mix[rest, rest] = 1
    return WordMap(mix=mix, keep=torch.zeros(tokens))
