"""MGIE's language side: values of the authors' code (tests/parity), the ids of its prompt, files that do not fit."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPImageProcessor

from baselines.llama import EMBEDDINGS, HEAD
from baselines.mgie.describer import Describer, Reader, first_state
from baselines.mgie.edit_head import read_edit_head
from baselines.mgie.prompts import Prompter, SpecialTokens
from baselines.mgie.weights import read_language_model, read_vision
from editar.io.tensors import CheckpointError
from tests.baselines.llama_layout import (
    MGIE_CONFIG,
    PARITY,
    hash_filled,
    mgie_language_model,
    mgie_weights,
    write_config,
    write_shards,
)
from tests.baselines.llama_tokenizer import IDS, WORDS, write_tokenizer
from tests.baselines.mgie_layout import TINY, random_mllm, vision_shapes, write_clip, write_llava, write_mllm

IMAGE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(PARITY / "mgie_expected.safetensors")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parity weights in the published files."""
    root = tmp_path_factory.mktemp("official")
    write_shards(write_config(root / "llava", MGIE_CONFIG | {"mm_hidden_size": 40}), mgie_language_model())
    weights = mgie_weights()
    own = {
        name: tensor for name, tensor in weights.items() if name.startswith("edit_head.") or name in (EMBEDDINGS, HEAD)
    }
    write_mllm(root / "mllm.pt", own | {"emb": weights[EMBEDDINGS][None, -8:].clone()})
    write_clip(
        root / "clip", hash_filled(vision_shapes(40, 80)), hidden_size=40, intermediate_size=80, num_attention_heads=4
    )
    return root


@pytest.fixture(scope="module")
def reader(official: Path) -> Reader:
    options: Any = {"dtype": torch.float32, "device": "cpu"}
    model, projector = read_language_model(official / "llava", official / "mllm.pt", **options)
    return Reader(model, projector, read_vision(official / "clip", **options), SpecialTokens.last_of(96))


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative, L2."""
    assert found.shape == wanted.shape
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def test_the_image_is_seen_as_by_the_authors_code(reader: Reader, expected: dict[str, Tensor]) -> None:
    features = reader.look(expected["pixel_values"])
    assert distance(features, expected["vision"][0]) < 1e-4
    assert distance(reader.projector(features), expected["projected"][0]) < 1e-4


def test_states_are_the_authors(reader: Reader, expected: dict[str, Tensor]) -> None:
    tokens = expected["full"][0].tolist()
    embeddings = reader.embed(tokens, reader.look(expected["pixel_values"]))
    with torch.inference_mode():
        output: Any = reader.language_model(inputs_embeds=embeddings[None], output_hidden_states=True)
    states = output.hidden_states[-1][0]
    assert distance(states, expected["forced_states"]) < 1e-4
    assert distance(output.logits[0], expected["forced_logits"]) < 1e-4
    start = first_state(tokens, reader.special.images[0], len(states))
    assert distance(states[start : start + 8], expected["states"]) < 1e-4


def test_the_edit_head_is_the_authors(official: Path, expected: dict[str, Tensor]) -> None:
    head = read_edit_head(official / "mllm.pt")
    with torch.inference_mode():
        assert distance(head(expected["states"][None]), expected["prompt_embeds"]) < 1e-4
        assert distance(head.null(), expected["null_embeds"]) < 1e-4


def test_the_answer_is_the_authors(reader: Reader, expected: dict[str, Tensor]) -> None:
    features = reader.look(expected["pixel_values"])
    written = reader.answer(expected["prompt"][0].tolist(), features, new_tokens=40)
    assert written.tokens == expected["sequence_ngram3"].tolist()
    assert distance(written.states, expected["generated_states_ngram3"]) < 1e-4


@pytest.mark.parametrize("case", ["early", "late", "never"])
def test_states_are_taken_where_the_authors_take_them(reader: Reader, expected: dict[str, Tensor], case: str) -> None:
    """Whether the answer goes on to its end or stops once that is decided."""
    token, start = (int(expected[f"rule_{case}_{name}"]) for name in ("token", "start"))
    tokens, states = expected["sequence_ngram3"].tolist(), expected["generated_states_ngram3"]
    assert first_state(tokens, token, len(states)) == start
    assert torch.equal(states[start : start + 8], expected[f"rule_{case}_states"])

    images = (token, *reader.special.images[1:])
    stopping = Reader(reader.language_model, reader.projector, reader.vision, replace(reader.special, images=images))
    features = reader.look(expected["pixel_values"])
    written = stopping.answer(expected["prompt"][0].tolist(), features, new_tokens=40)
    assert (len(written.tokens) < len(tokens)) == (case == "early")
    assert first_state(written.tokens, token, len(written.states)) == start
    assert distance(written.states[start : start + 8], expected[f"rule_{case}_states"]) < 1e-4


def test_features_stand_in_the_place_of_the_last_patches(reader: Reader) -> None:
    special = reader.special
    features = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    words = [4, special.start, special.patch, 5]  # of an instruction
    tokens = [*words, special.start, *[special.patch] * 3, special.end, 6]
    embeddings = reader.embed(tokens, features)
    own = reader.language_model.get_input_embeddings()(torch.tensor(tokens))
    assert torch.equal(embeddings[5:8], reader.projector(features))
    assert torch.equal(embeddings[:5], own[:5]) and torch.equal(embeddings[8:], own[8:])


# --- the prompt


def test_the_prompt_has_the_published_ids(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json")
    prompter = Prompter(path, 32011)
    before, behind = IDS[: WORDS.index("▁")], IDS[WORDS.index("▁") :]
    image = [32001, *[32000] * 256, 32002]
    assert prompter.prompt("make it red", 256) == [1, *before, 13, *image, *behind]
    assert prompter.special == SpecialTokens(patch=32000, start=32001, end=32002, images=tuple(range(32003, 32011)))
    assert prompter.prompt("{image}", 1).count(32000) == 1
    # The file alone, which has the tokens as normalized, takes them for letters.
    assert 32001 not in Tokenizer.from_file(str(path)).encode("red'\n<im_start>").ids


@pytest.mark.parametrize(
    "change",
    [
        {"special": True},
        {"normalized": False},
        {"special": True, "normalized": False, "rstrip": True},
    ],
)
def test_the_ids_do_not_depend_on_how_the_tokens_are_stored(tmp_path: Path, change: dict[str, bool]) -> None:
    """The flags of the published file are not on record."""
    path = write_tokenizer(tmp_path / "tokenizer.json")
    expected = Prompter(path, 32011).prompt("make it red", 4)
    content = json.loads(path.read_text())
    for token in content["added_tokens"][3:]:  # LLaVA's
        token.update(change)
    pad = {
        "strategy": {"Fixed": 400}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<unk>",
    }  # fmt: skip
    cut = {"direction": "Right", "max_length": 20, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(content | {"padding": pad, "truncation": cut}))
    assert Prompter(path, 32011).prompt("make it red", 4) == expected


def test_answers_become_text(tmp_path: Path) -> None:
    prompter = Prompter(write_tokenizer(tmp_path / "tokenizer.json"), 32011)
    assert prompter.text([450, 1967, 674, 367, 2654, 29889, 2, 1, 32003, 32004, 0]) == "The image will be red."


@pytest.mark.parametrize(
    ("added", "vocabulary"),
    [
        (("<im_patch>", "<im_start>", "<im_end>"), 32012),  # the model has a row more
        (("<im_start>", "<im_patch>", "<im_end>"), 32011),
        (("<im_patch>", "<im_start>", "<im_end>", "[PAD]"), 32012),
    ],
)
def test_other_ids_are_refused(tmp_path: Path, added: tuple[str, ...], vocabulary: int) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json", added)
    with pytest.raises(CheckpointError, match="as they were published"):
        Prompter(path, vocabulary)


@pytest.mark.parametrize(
    "change",
    [
        {"post_processor": None},  # no <s>
        {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}},  # no lone "▁"
        {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}},  # no newline
    ],
)
def test_a_tokenizer_that_cuts_otherwise_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match="cuts the prompt"):
        Prompter(path, 32011)
    path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        Prompter(path, 32011)


# --- files


@pytest.fixture
def files(tmp_path: Path) -> Path:
    own = random_mllm(TINY)
    write_mllm(tmp_path / "mllm.pt", own)
    write_llava(tmp_path / "llava", own)
    write_clip(tmp_path / "clip")
    return tmp_path


def load(files: Path, dtype: torch.dtype = torch.float32) -> Describer:
    return Describer.load(files / "llava", files / "mllm.pt", files / "clip", device="cpu", dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_describes_in_every_precision(files: Path, dtype: torch.dtype) -> None:
    describer = load(files, dtype)
    assert {each.dtype for network in describer.reader.networks for each in network.parameters()} == {dtype}
    found = describer.describe(IMAGE, "make it red")
    assert found.states.shape == (8, TINY.hidden) and found.states.dtype == dtype
    assert found.states.isfinite().all() and "no [IMG0]" in found.fallback


def test_pixels_are_those_of_the_published_processor(files: Path) -> None:
    image = Image.effect_noise((90, 50), 80).convert("RGB")
    processor: Any = load(files).processor
    found = processor(image, return_tensors="pt")["pixel_values"]
    cut = image.resize((50, 28), Image.Resampling.BICUBIC).crop((11, 0, 39, 28))
    mean, std = torch.tensor(CLIPImageProcessor.image_mean), torch.tensor(CLIPImageProcessor.image_std)
    levels = torch.tensor(list(cut.tobytes()), dtype=torch.float64).reshape(28, 28, 3) / 255
    assert torch.allclose(found[0], ((levels - mean) / std).permute(2, 0, 1).float(), atol=1e-5)


def change_mllm(**changes: Tensor | None) -> Callable[[Path], None]:
    def change(files: Path) -> None:
        state = {**random_mllm(TINY), **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
        write_mllm(files / "mllm.pt", {name: tensor for name, tensor in state.items() if tensor is not None})

    return change


def change_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(files: Path) -> None:
        path = files / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def only_differences(files: Path) -> None:
    """As LLaVA-Lightning-7B-delta-v1-1 is: next to nothing is left of the embeddings."""
    own = random_mllm(TINY)
    write_llava(files / "llava", own | {EMBEDDINGS: own[EMBEDDINGS] * 0.01})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change_mllm(lm_head__weight=None), r"missing lm_head\.weight"),
        (change_mllm(emb=None), "missing emb"),
        (change_mllm(model__norm__weight=torch.ones(12)), r"unexpected model\.norm\.weight"),
        (change_json("llava/config.json", mm_vision_select_layer=-1), "mm_vision_select_layer is -1"),
        (change_json("llava/config.json", mm_hidden_size=9), r"mm_projector\.weight has shape"),
        (change_json("llava/config.json", mm_hidden_size=None), "mm_hidden_size"),
        (lambda files: os.remove(files / "llava/pytorch_model-00002-of-00002.bin"), "lacks 1 of its 2 shards"),
        (lambda files: write_clip(files / "clip", num_hidden_layers=2), "does not fit CLIPVisionModel"),
        (lambda files: write_clip(files / "clip", hidden_size=16), "gives 16 features, the projector takes 8"),
        (change_json("clip/preprocessor_config.json", crop_size={"height": 14, "width": 14}), "crop_size"),
        (only_differences, "LLaVA-Lightning-7B-delta-v1-1"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(files: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(files)
    with pytest.raises(CheckpointError, match=message):
        load(files)


def test_tuned_embeddings_are_no_difference_of_weights(files: Path) -> None:
    """Rows of common tokens may have become others altogether."""
    own = random_mllm(TINY)
    own[EMBEDDINGS][: len(own[EMBEDDINGS]) // 2] *= -1
    write_mllm(files / "mllm.pt", own)
    assert load(files).reader.language_model.config.vocab_size == 32011
