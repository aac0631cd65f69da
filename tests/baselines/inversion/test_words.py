"""The aligner against cases made by hand, with a tokenizer that spells words it does not know."""

from pathlib import Path

import pytest
import torch

from baselines.inversion.words import Prompt, WordError, find_word, read_prompt, refinement, replacement
from baselines.stable_diffusion.networks import StableDiffusion

TOKENS = 20


@pytest.fixture(scope="module")
def read(weights: Path):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(weights / "diffusion" / "tokenizer")
    return lambda text: read_prompt(tokenizer, text)


def partners(source: Prompt, target: Prompt) -> list[int | None]:
    """Of each of the target's tokens the one in the source, None where it keeps its own attention."""
    found = refinement(source, target, TOKENS)
    assert torch.equal(found.mix.sum(0) + found.keep, torch.ones(TOKENS))
    return [None if found.keep[j] else int(found.mix[:, j].argmax()) for j in range(TOKENS)]


def test_a_word_of_one_token(read):
    prompt = read("a photo of a cat")
    assert prompt.words == ("a", "photo", "of", "a", "cat") and len(prompt.ids) == 7
    assert find_word(prompt, "cat") == (5,)


def test_a_word_of_several_tokens_and_those_behind_it(read):
    prompt = read("a robot on the mat")  # r-o-b-o-t
    assert find_word(prompt, "robot") == (2, 3, 4, 5, 6)
    assert find_word(prompt, "mat") == (9,)


def test_a_repeated_word_is_found_everywhere(read):
    assert find_word(read("a cat on a cat"), "cat") == (2, 5)


def test_more_white_space_changes_nothing(read):
    assert read(" a  cat\ton the mat\n") == read("a cat on the mat")


def test_punctuation_belongs_to_the_word(read):
    prompt = read("a cat, a dog. the cat's mat")
    assert find_word(prompt, "cat,") == (2, 3)
    assert find_word(prompt, "cat's") == (8, 9, 10)
    assert find_word(prompt, "mat") == (11,)


def test_without_an_equal_word_punctuation_and_case_are_left_out_of_account(read):
    prompt = read("a Cat, a dog.")
    assert find_word(prompt, "cat") == (2, 3) and find_word(prompt, "DOG") == (5, 6)
    assert find_word(read("a cat, a cat"), "cat") == (5,)  # the equal word alone, where there is one
    assert find_word(read("a cat - a dog"), "-") == (3,)


@pytest.mark.parametrize("word", ["horse", "ca", "a cat", ""])
def test_a_word_that_is_not_there_is_an_error(read, word):
    with pytest.raises(WordError):
        find_word(read("a cat on the mat"), word)


def test_a_word_behind_the_last_token_is_an_error(read):
    prompt = read("the mat " * 9 + "cat")  # 19 tokens of which 18 stay
    assert len(prompt.ids) == TOKENS and find_word(prompt, "mat")[-1] == 18
    with pytest.raises(WordError):
        find_word(prompt, "cat")


def test_refining_keeps_exchanged_words_and_takes_the_rest(read):
    same = list(range(7, TOKENS))
    assert partners(read("a photo of a cat"), read("a photo of a dog")) == [0, 1, 2, 3, 4, None, 6, *same]
    assert partners(read("a photo of a cat"), read("a photo of a cat")) == list(range(TOKENS))


def test_refining_with_words_added_and_taken_away(read):
    # a red cat on -> a cat on; behind the target's end token each position has the source's same one
    assert partners(read("a red cat on"), read("a cat on")) == [0, 1, 3, 4, 5, *range(5, TOKENS)]
    assert partners(read("a cat on"), read("a red cat on")) == [0, 1, None, 2, 3, 4, *range(6, TOKENS)]


def test_refining_a_spelled_word_shares_its_letters(read):
    # <start> c-o-w <end> and <start> r-o-w <end>, where the last letters are tokens of their own kind
    assert partners(read("cow"), read("row")) == [0, None, 2, 3, 4, *range(5, TOKENS)]


def test_of_equally_long_alignments_the_earliest_counts(read):
    assert partners(read("cat cat"), read("cat")) == [0, 1, 3, *range(3, TOKENS)]
    assert partners(read("cat"), read("cat cat")) == [0, 1, None, 2, *range(4, TOKENS)]


def test_replacing_words_of_one_token(read):
    found = replacement(read("a cat on"), read("a dog on"), TOKENS)
    assert torch.equal(found.mix, torch.eye(TOKENS)) and not found.keep.any()


def test_replacing_spreads_a_word_over_more_tokens(read):
    found = replacement(read("a cat on"), read("a cow on"), TOKENS)  # cat: 2; c-o-w: 2, 3, 4
    expected = torch.zeros(TOKENS, TOKENS)
    expected[[0, 1], [0, 1]] = 1
    expected[2, [2, 3, 4]] = 1 / 3
    rest = torch.arange(5, TOKENS)  # the authors' code does not shift what follows the last exchanged word
    expected[rest, rest] = 1
    assert torch.equal(found.mix, expected)


def test_replacing_shifts_what_stands_between_exchanged_words(read):
    found = replacement(read("a cow on cat"), read("a cat on dog"), TOKENS)  # c-o-w: 2, 3, 4; on: 5; cat: 6
    columns = [found.mix[:, j].nonzero().flatten().tolist() for j in range(6)]
    assert columns == [[0], [1], [2, 3, 4], [5], [6], [5]]  # on: 3 of the target, dog: 4, then not shifted
    assert found.mix[2:5, 2].tolist() == [1, 1, 1]


def test_replacing_needs_as_many_words(read):
    with pytest.raises(WordError):
        replacement(read("a cat"), read("a red cat"), TOKENS)


def test_a_prompt_that_is_cut_is_told_once(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = StableDiffusion.from_folder(weights / "diffusion", "cpu", "float32")
    for _ in range(2):
        model.embed(["a cat", "a cat " * 20, "a dog " * 20])
    told = capsys.readouterr().err
    assert told.count("note: ") == 1 and "cut to the 20 that the text encoder reads" in told and "a cat a cat" in told
