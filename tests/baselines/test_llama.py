"""LLaMA out of the authors' files against values of the authors' code (tests/parity), and files that do not fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM, StoppingCriteria

from baselines.llama import EMBEDDINGS, HEAD, map_weights, read_config, read_llama, write
from editar.io.tensors import CheckpointError
from tests.baselines.llama_layout import MGIE_CONFIG, PARITY, mgie_language_model, write_config, write_shards

BESIDE = ("model.mm_projector.weight", "model.mm_projector.bias")
EOS = 1


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(PARITY / "mgie_expected.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shards(write_config(tmp_path / "llava", MGIE_CONFIG), mgie_language_model())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LlamaForCausalLM:
    folder = write_config(tmp_path_factory.mktemp("model"), MGIE_CONFIG)
    return read(write_shards(folder, mgie_language_model()))


def read(folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> LlamaForCausalLM:
    return read_llama(folder, dtype=dtype, beside=BESIDE, **options)


def embedded(model: LlamaForCausalLM, tokens: Tensor, expected: dict[str, Tensor]) -> Tensor:
    """With the image in the place of its patches, 85."""
    embeddings = model.get_input_embeddings()(tokens).clone()
    embeddings[tokens == 85] = expected["projected"][0].to(embeddings.dtype)
    return embeddings


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative, L2."""
    assert found.shape == wanted.shape
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def test_states_and_logits_are_the_authors(model: LlamaForCausalLM, expected: dict[str, Tensor]) -> None:
    embeddings = embedded(model, expected["full"][0], expected)[None]
    with torch.inference_mode():
        output: Any = model(inputs_embeds=embeddings, output_hidden_states=True)
    assert distance(output.hidden_states[-1][0], expected["forced_states"]) < 1e-4
    assert distance(output.logits[0], expected["forced_logits"]) < 1e-4


@pytest.mark.parametrize("no_repeat", [0, 3])
def test_answers_are_the_authors(model: LlamaForCausalLM, expected: dict[str, Tensor], no_repeat: int) -> None:
    prompt = expected["prompt"][0]
    written = write(
        model, prompt.tolist(), embedded(model, prompt, expected), new_tokens=40, ends=[EOS], no_repeat=no_repeat
    )
    assert written.tokens == expected[f"sequence_ngram{no_repeat}"].tolist()
    assert distance(written.states, expected[f"generated_states_ngram{no_repeat}"]) < 1e-4


class StopAt(StoppingCriteria):
    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids: Any, scores: Any, **others: Any) -> Any:
        return torch.tensor([bool((input_ids == self.token).any())])


def test_an_answer_ends_where_it_is_told(model: LlamaForCausalLM, expected: dict[str, Tensor]) -> None:
    prompt, whole = expected["prompt"][0], expected["sequence_ngram0"].tolist()
    embeddings = embedded(model, prompt, expected)
    end = next(token for token in whole[len(prompt) :] if token not in prompt)
    cut = whole[: len(prompt) + whole[len(prompt) :].index(end) + 1]
    for options in ({"ends": [EOS, end]}, {"ends": [EOS], "stops": [StopAt(end)]}):
        written = write(model, prompt.tolist(), embeddings, new_tokens=40, **options)
        assert written.tokens == cut and len(written.states) == len(cut) - 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(folder: Path, expected: dict[str, Tensor], dtype: torch.dtype) -> None:
    model = read(folder, dtype)
    assert {each.dtype for each in model.parameters()} == {dtype}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    prompt = expected["prompt"][0]
    written = write(model, prompt.tolist(), embedded(model, prompt, expected), new_tokens=8, ends=[EOS])
    assert written.states.dtype == dtype
    rows = len(prompt) - 1
    assert 0 < distance(written.states[:rows], expected["generated_states_ngram0"][:rows]) < 0.05


def test_one_file_and_shards_of_either_kind_are_the_same_model(
    folder: Path, tmp_path: Path, model: LlamaForCausalLM
) -> None:
    state, whole = mgie_language_model(), write_config(tmp_path / "whole", MGIE_CONFIG)
    save_file(state, whole / "model.safetensors")
    pickled = write_config(tmp_path / "pickled", MGIE_CONFIG)
    buffer = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(8) for layer in range(2)}
    torch.save(state | buffer, pickled / "pytorch_model.bin")
    for place in (folder, whole, pickled):
        found = read(place).state_dict()
        assert found.keys() == model.state_dict().keys()
        assert all(torch.equal(found[name], state[name]) for name in found)
    assert set(map_weights(pickled)) == set(state)


def test_weights_are_replaced_with_more_tokens_than_the_folder_has(folder: Path) -> None:
    own = {name: torch.randn(101, 64) for name in (EMBEDDINGS, HEAD)}
    model = read(folder, replaced=lambda: own)
    state = mgie_language_model()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, own.get(name, state.get(name)))  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"lm_head.weight has shape \(96, 64\) instead of \(101, 64\)"):
        read(folder, replaced=lambda: {EMBEDDINGS: own[EMBEDDINGS]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.layers.1.mlp.up_proj.weight": None}, "missing model.layers.1.mlp.up_proj.weight"),
        ({"model.layers.2.mlp.up_proj.weight": (2, 2)}, "unexpected model.layers.2.mlp.up_proj.weight"),
        ({"model.norm.weight": (63,)}, r"model.norm.weight has shape \(63,\) instead of \(64,\)"),
        (
            {"model.norm.weight": None, "model.norm.bias": (64,)},
            "missing model.norm.weight; unexpected",
        ),
    ],
)
def test_every_tensor_has_to_fit(tmp_path: Path, change: dict[str, Sequence[int] | None], message: str) -> None:
    state = mgie_language_model()
    for name, shape in change.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = torch.zeros(tuple(shape))
    folder = write_shards(write_config(tmp_path, MGIE_CONFIG), state)
    with pytest.raises(CheckpointError, match=message):
        read(folder)


def test_a_layer_that_no_file_has_is_refused(tmp_path: Path) -> None:
    config = MGIE_CONFIG | {"num_hidden_layers": 10**7}
    folder = write_shards(write_config(tmp_path, config), mgie_language_model())
    with pytest.raises(CheckpointError, match="10000000 layers"):
        read(folder)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    folder = write_shards(write_config(tmp_path, MGIE_CONFIG), mgie_language_model(), shards=4)
    for number in (2, 4):
        (folder / f"pytorch_model-0000{number}-of-00004.bin").unlink()
    with pytest.raises(CheckpointError, match=r"2 of its 4 shards, .*00002-of.*, .*00004-of"):
        read(folder)
    (folder / "pytorch_model.bin.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin\.index\.json"):
        read(folder)


@pytest.mark.parametrize("index", ["[]", "{", '{"weight_map": {}}', '{"weight_map": {"a": "../other.bin"}}'])
def test_an_index_that_is_none_is_refused(folder: Path, index: str) -> None:
    (folder / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin\.index\.json"):
        read(folder)


def test_a_tensor_in_two_shards_is_refused(folder: Path) -> None:
    first, second = sorted(folder.glob("*.bin"))
    torch.save(torch.load(first) | torch.load(second), second)
    with pytest.raises(CheckpointError, match="in another shard"):
        read(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", None), ("hidden_size", "64"), ("num_hidden_layers", 0), ("num_attention_heads", 5),
        ("rms_norm_eps", None), ("rope_theta", 0), ("hidden_act", "gelu"), ("tie_word_embeddings", True),
        ("rope_scaling", {"type": "linear", "factor": 2.0}), ("attention_bias", True), ("num_key_value_heads", 1.5),
    ],
)  # fmt: skip
def test_a_configuration_of_another_model_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    folder = write_config(tmp_path, MGIE_CONFIG | {name: value})
    with pytest.raises(CheckpointError, match=name):
        read_config(folder)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(tmp_path / "nowhere")


def test_the_configuration_is_the_file_s(tmp_path: Path) -> None:
    given = {**MGIE_CONFIG, "rms_norm_eps": 1e-5, "rope_theta": 5000.0, "max_position_embeddings": 512}
    config = read_config(write_config(tmp_path, given))
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (96, 64, 2)
    assert (config.rms_norm_eps, config.max_position_embeddings) == (1e-5, 512)
    assert config.rope_parameters["rope_theta"] == 5000.0  # type: ignore[index]
