import pytest
import torch

from editar.config import WordTextConfig
from editar.text import END, PAD, UNKNOWN, T5TextEncoder, WordTextEncoder


@pytest.fixture
def words():
    torch.manual_seed(0)
    return WordTextEncoder(WordTextConfig(vocabulary=("make", "it", "snow"), length=6, dim=16, layers=2, heads=2))


def test_words_are_lower_cased_cut_and_padded(words):
    ids = words.tokenize(["Make it SNOW!", "", "it it it it it it it it", "a snow-man"])
    assert ids.tolist() == [
        [3, 4, 5, END, PAD, PAD],
        [END, PAD, PAD, PAD, PAD, PAD],
        [4, 4, 4, 4, 4, END],
        [UNKNOWN, UNKNOWN, END, PAD, PAD, PAD],
    ]


@torch.no_grad()
def test_word_embeddings_have_the_promised_shape_and_depend_on_order(words):
    out = words(["make it", "it make", ""])
    assert out.shape == (3, words.length, words.dim)
    assert out.isfinite().all()
    assert not torch.allclose(out[0], out[1], atol=1e-3)


@torch.no_grad()
def test_padding_is_not_attended_to(words):
    before = words(["make it"])
    words.words.weight[PAD] += 3
    after = words(["make it"])
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])  # its own embedding is passed on


def test_every_weight_of_the_word_encoder_is_trained(words):
    words(["make it snow", "snow"]).square().sum().backward()
    words(["make it snow", "snow"])[:, 0].sum().backward()
    assert [name for name, p in words.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary": ("a", "a")}, "has a word twice"),
        ({"vocabulary": ("Snow",)}, "'Snow' is not one lower-case word"),
        ({"vocabulary": ("a b",)}, "'a b' is not one lower-case word"),
        ({"vocabulary": ("a",), "dim": 10, "heads": 4}, "dim=10 is not a multiple of heads=4"),
        ({"vocabulary": ("a",), "length": 0}, "length is 0"),
    ],
)
def test_impossible_word_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        WordTextConfig(**settings)


def test_t5_is_padded_masked_and_not_zeroed(t5_folder):
    encoder = T5TextEncoder(t5_folder, length=16)
    assert (encoder.length, encoder.dim) == (16, 32)
    out = encoder(["make it snow", "make it snow in the garden"])
    assert out.shape == (2, 16, 32)
    ids = encoder.tokenizer("make it snow", return_tensors="pt")["input_ids"]
    assert ids[0, -1] == 1  # the end mark
    alone = encoder.model(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(out[0, : len(alone)], alone, rtol=1e-4, atol=1e-5)
    assert out[0, len(alone) :].abs().sum(-1).min() > 0


def test_t5_keeps_case_and_truncates_with_an_end_mark(t5_folder):
    encoder = T5TextEncoder(t5_folder, length=5)
    assert not torch.allclose(encoder(["Turn"]), encoder(["turn"]))
    long = "make it snow in the garden"
    assert encoder([long]).shape == (1, 5, 32)
    ids = encoder.tokenizer([long], max_length=5, padding="max_length", truncation=True)["input_ids"][0]
    assert ids[-1] == 1


def test_a_missing_t5_says_what_is_needed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no T5 text encoder at .*nowhere.*config\.json.*flan-t5-xl"):
        T5TextEncoder(tmp_path / "nowhere")
