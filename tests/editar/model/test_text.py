import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from editar.config import WordTextConfig
from editar.io.tensors import CheckpointError
from editar.model.t5 import T5TextEncoder
from editar.model.text import END, PAD, UNKNOWN, WordTextEncoder


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
    words.words.weight[PAD, 0] += 3  # not of all alike, which the norms would take off again
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


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_t5_is_padded_masked_and_not_zeroed(t5_folder, dtype):
    from transformers import T5EncoderModel

    encoder = T5TextEncoder(t5_folder, length=16, dtype=dtype)
    assert (encoder.length, encoder.dim) == (16, 32)
    out = encoder(["make it snow", "make it snow in the garden"])
    assert (out.shape, out.dtype) == ((2, 16, 32), dtype)
    tokens = encoder.tokenizer(["make it snow"], max_length=16, padding="max_length", return_tensors="pt")
    reference = T5EncoderModel.from_pretrained(t5_folder, dtype=dtype).eval()
    assert torch.equal(out[:1], reference(**tokens).last_hidden_state)
    count = int(tokens["attention_mask"].sum())
    assert tokens["input_ids"][0, count - 1] == 1  # the end mark
    unpadded = reference(input_ids=tokens["input_ids"][:, :count]).last_hidden_state[0]
    close = {torch.float32: 1e-5, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(out[0, :count], unpadded, rtol=10 * close, atol=close)
    assert out[0, count:].abs().sum(-1).min() > 0


def test_t5_keeps_case_and_truncates_with_an_end_mark(t5_folder):
    encoder = T5TextEncoder(t5_folder, length=5)
    assert not torch.allclose(encoder(["Turn"]), encoder(["turn"]))
    long = "make it snow in the garden"
    assert encoder([long]).shape == (1, 5, 32)
    ids = encoder.tokenizer([long], max_length=5, padding="max_length", truncation=True)["input_ids"][0]
    assert ids[-1] == 1


def test_what_does_not_fit_is_told(words, t5_folder):
    assert words.cut_off("Make it, make it SNOW") == ""
    assert words.cut_off("Make it, make it SNOW now, please") == "now, please"
    text = "make it snow in the garden"
    encoder = T5TextEncoder(t5_folder, length=5)
    cut = encoder.cut_off(text)
    assert cut
    assert torch.equal(encoder([text]), encoder([text.removesuffix(cut)]))
    assert T5TextEncoder(t5_folder).cut_off(text) == ""


def test_t5_takes_each_text_by_itself_and_its_weights_only_for_a_call(t5_folder, tmp_path):
    folder = shutil.copytree(t5_folder, tmp_path / "t5")
    encoder = T5TextEncoder(folder, length=16)
    both = encoder(["make it snow", "Turn"])
    (folder / "model.safetensors").rename(folder / "away")
    assert torch.equal(encoder(["Turn", "make it snow", "Turn"]), both[[1, 0, 1]])  # remembered
    with pytest.raises(FileNotFoundError):
        encoder(["another"])
    (folder / "away").rename(folder / "model.safetensors")
    assert torch.equal(T5TextEncoder(folder, length=16)(["Turn"]), both[1:])


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_t5_encodes_a_batch_in_one_pass_and_keeps_its_weights(t5_folder, tmp_path, dtype, close):
    folder = shutil.copytree(t5_folder, tmp_path / "t5")
    texts = ["make it snow", "Turn", "", "make it snow in the garden"]
    expected = T5TextEncoder(t5_folder, length=16, dtype=dtype)(texts)
    encoder = T5TextEncoder(folder, length=16, dtype=dtype)
    torch.testing.assert_close(encoder.together(texts[:2]), expected[:2], rtol=close, atol=close)
    (folder / "model.safetensors").unlink()
    together = encoder.together(texts)
    assert together.dtype == dtype and not together.requires_grad
    torch.testing.assert_close(together, expected, rtol=close, atol=close)
    assert torch.equal(encoder(texts), expected)  # one by one they are what they always are


@pytest.mark.parametrize("layout", ["shards", "pickle", "pickled shards"])
def test_t5_is_read_in_every_layout_of_the_hub_and_without_its_decoder(t5_folder, tmp_path, layout):
    folder = shutil.copytree(t5_folder, tmp_path / "t5")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    state |= {"encoder.embed_tokens.weight": state["shared.weight"].clone(), "decoder.block.0.weight": torch.ones(3)}
    shards = [{name: state[name] for name in list(state)[part::2]} for part in range(2)]
    if layout == "shards":
        for number, shard in enumerate(shards, 1):
            save_file(shard, folder / f"model-0000{number}-of-00002.safetensors")
    elif layout == "pickle":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        for number, shard in enumerate(shards, 1):
            torch.save(shard, folder / f"pytorch_model-0000{number}-of-00002.bin")
    assert torch.equal(T5TextEncoder(folder)(["snow"]), T5TextEncoder(t5_folder)(["snow"]))


def test_a_t5_that_lacks_a_tensor_is_refused(t5_folder, tmp_path):
    folder = shutil.copytree(t5_folder, tmp_path / "t5")
    state = load_file(folder / "model.safetensors")
    del state["encoder.final_layer_norm.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="final_layer_norm"):
        T5TextEncoder(folder)(["snow"])


def test_a_missing_t5_says_what_is_needed(tmp_path):
    with pytest.raises(FileNotFoundError):
        T5TextEncoder(tmp_path / "nowhere")
