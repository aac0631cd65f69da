"""Several tokens a pass draw what one at a time draws: every token of it, and where they are promised every bit."""

import copy

import pytest
import torch
from PIL import Image

from benchmarks.miniature.world.embedded import held_out_edits
from benchmarks.miniature.world.render import render
from editar.config import GUESSES, DraftConfig, SamplingConfig
from editar.decoding.cpu.linear import Int8Linear, PackedLinear, pack
from editar.decoding.cpu.step import FusedTransformer
from editar.decoding.decoder import Batch, Decoder
from editar.decoding.drafts import places, verify
from editar.decoding.forward import CachedTransformer
from editar.pipeline import EditAR
from tests.editar.marks import COMPILER

SAMPLINGS = [SamplingConfig(temperature=0.0, guidance=1.0), SamplingConfig(top_k=20, top_p=0.9)]
NUMBERS = ["plain float32", *(pytest.param(name, marks=COMPILER) for name in ("float32", "bfloat16", "int8"))]


@pytest.fixture(scope="module", params=NUMBERS)
def model(request, tiny):
    if request.param == "plain float32":
        return tiny
    packed = copy.deepcopy(tiny)
    if request.param == "bfloat16":
        packed.bfloat16()
    pack(packed, Int8Linear if request.param == "int8" else PackedLinear)
    return packed


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_tokens_are_those_of_one_at_a_time(model, three, sampling):
    condition, text, seeds = three
    one = Decoder(model).generate(condition, text, seeds, sampling, width=1)
    ways = (
        (1, DraftConfig(window=6, guess="above")),
        (8, DraftConfig(window=11, guess="jacobi")),
        (2, DraftConfig(window=64, guess="source")),
    )
    for width, drafts in ways:
        tokens = Decoder(model).generate(condition, text, seeds, sampling, width=width, drafts=drafts)
        assert torch.equal(tokens, one), drafts


def test_greedy_tokens_are_the_authors(tiny, tiny_expected):
    e = tiny_expected
    tokens = Decoder(tiny).generate(
        e["src"], e["txt"], [0, 0], SamplingConfig(temperature=0.0), width=2, drafts=DraftConfig(window=8)
    )
    assert torch.equal(tokens, e["greedy_cfg3"])


@COMPILER
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("each", [1, 2])
def test_logits_of_many_places_have_the_bits_of_one_at_a_time(tiny, three, dtype, each):
    """Two images that stand at different places."""
    packed = copy.deepcopy(tiny).to(dtype)
    pack(packed)
    condition, text, _ = three
    rows = condition[:2], text[:2].repeat_interleave(each, 0)
    fed = torch.randint(0, 128, (2 * each, 40), generator=torch.Generator().manual_seed(1))
    one, many = FusedTransformer(packed, 2, each), FusedTransformer(packed, 2, each, window=33)
    one.prefill(*rows)
    expected = torch.stack([one.decode_one(token) for token in fed.T], 1)
    many.prefill(*rows)
    assert torch.equal(many.decode_many(fed[:, :33]), expected[:, :33])
    many.slot_B.copy_(torch.tensor([4, 21]))  # the second image goes on behind 20 fed tokens
    again = many.decode_many(torch.cat([fed[:each, 3:20], fed[each:, 20:37]]))
    assert torch.equal(again, torch.cat([expected[:each, 3:20], expected[each:, 20:37]]))


@torch.no_grad()
def test_logits_of_plain_operations_at_different_places_are_those_of_one_at_a_time(tiny, three):
    condition, text, _ = three
    fed = torch.randint(0, 128, (2, 40), generator=torch.Generator().manual_seed(1))
    one, many = (CachedTransformer(tiny, 2, 1) for _ in range(2))
    one.prefill(condition[:2], text[:2])
    expected = torch.stack([one.decode_one(token) for token in fed.T], 1)
    many.prefill(condition[:2], text[:2])
    many.decode_many(fed[:, :30])
    many.slot_B.copy_(torch.tensor([4, 21]))
    again = many.decode_many(torch.stack([fed[0, 3:20], fed[1, 20:37]]))
    wanted = torch.stack([expected[0, 3:20], expected[1, 20:37]])
    torch.testing.assert_close(again, wanted, rtol=1e-4, atol=1e-5)


def test_right_guesses_are_all_taken_and_of_wrong_ones_the_first_is_mended():
    tokens = torch.tensor([[5, 1, 2, 3, 4, 9], [5, 1, 2, 3, 4, 9]])
    done = torch.tensor([1, 2])
    fed = places(done, window=3, tokens=6)
    assert fed.tolist() == [[0, 1, 2], [1, 2, 3]]
    drawn = torch.tensor([[1, 2, 3], [2, 8, 7]])  # of the second image 3 was wrong, and so 4 says nothing
    assert verify(tokens, drawn, fed, done).tolist() == [4, 4]
    assert tokens.tolist() == [[5, 1, 2, 3, 4, 9], [5, 1, 2, 8, 7, 9]]


def test_final_tokens_that_are_fed_again_stay():
    """Near the end a pass takes the last places, some of which are done."""
    tokens, done = torch.tensor([[5, 1, 2, 3, 4, 9]]), torch.tensor([5])
    fed = places(done, window=3, tokens=6)
    assert fed.tolist() == [[2, 3, 4]]
    assert verify(tokens, torch.tensor([[0, 0, 6]]), fed, done).tolist() == [6]
    assert tokens.tolist() == [[5, 1, 2, 3, 4, 6]]


@torch.no_grad()
@pytest.mark.parametrize("guess", GUESSES)
def test_a_perfect_guess_takes_as_few_passes_as_there_can_be_and_any_other_no_more_than_one_a_token(tiny, three, guess):
    condition, text, seeds = three
    sampling = SamplingConfig(temperature=0.0)
    wanted = Decoder(tiny).generate(condition[:1], text[:1], seeds[:1], sampling, width=1)
    batch = Batch(tiny, 1, sampling, DraftConfig(window=9, guess=guess))
    with torch.inference_mode():
        batch.start(condition[:1], text[:1], torch.zeros(1, 64))
        if guess == "source":
            batch.tokens_BN.copy_(wanted)
        batch.finish()
    assert torch.equal(batch.tokens_BN, wanted)
    assert batch.passes == 7 if guess == "source" else 7 <= batch.passes <= 63


def test_progress_counts_tokens(tiny, three):
    calls: list[None] = []
    condition, text, seeds = three
    drafts = DraftConfig(window=7)
    decoder = Decoder(tiny)
    decoder.generate(
        condition, text, seeds, SamplingConfig(), width=2, drafts=drafts, progress=lambda: calls.append(None)
    )
    assert len(calls) == 2 * 64


@pytest.mark.parametrize("changes", [{"window": 0}, {"window": 65}, {"window": 2.0}, {"guess": "best"}])
def test_absurd_drafts_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        DraftConfig(**changes)


@COMPILER
def test_the_miniature_draws_the_same_image_in_fewer_passes():
    """Byte for byte, whatever the number of places."""
    edits = held_out_edits({"2": 1, "8": 1, "9": 1})
    images, texts = [Image.fromarray(render(edit.source)) for edit in edits], [edit.instruction for edit in edits]
    made = []
    for window in (1, 4, 8, 16):
        model = EditAR.from_pretrained(width=1, drafts=DraftConfig(window=window))
        made.append([image.tobytes() for image in model.edit(images, texts, seeds=[1, 2, 3])])
    assert made[1:] == made[:1] * 3
