"""The readers of weights and settings under fuzz: what each is given, and what it may give or refuse."""

import argparse
import io
import json
import pickle
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import save as save_tensors

from baselines.external import read_recipe
from baselines.llama import read_llama
from baselines.mgie.prompts import Prompter
from baselines.seed_x.prompt import Tokens
from editar.io.tensors import CheckpointError, map_pickle, read_tensors
from editar.model.checkpoint import FILES, FORMAT, read_model
from editar.model.official import official_transformer_config, official_vq_config
from editar.training.settings import parse
from editar.training.tensor_reader import METADATA, TensorReader
from tests.baselines.llama_tokenizer import tokenizer_json
from tests.baselines.seed_x_layout import PARITY_TOKENS, tokenizer_files
from tests.safety.strategies import (
    DEEP,
    JSON,
    SCALARS,
    Case,
    changed,
    damaged,
    refused_by_name,
    text_file,
)

# --- safetensors

CONFIGS: dict[str, dict[str, Any]] = {
    "vq": {
        "channels": 4, "multipliers": [1, 1], "res_blocks": 1, "latent_channels": 4, "codebook_size": 4,
        "codebook_dim": 2, "norm_groups": 2,
    },
    "transformer": {"layers": 1, "heads": 1, "dim": 4, "vocab_size": 4, "grid": 2, "text_length": 2, "text_dim": 2},
    "text-words": {"vocabulary": ["red"], "length": 2, "dim": 2, "layers": 1, "heads": 1},
}  # fmt: skip
NUMBERS = st.sampled_from(
    [0, -1, 1, 2, 3, 2**20, 2**31, 2**63, 10**30, 1.5, 1e300, float("nan"), "4", None, True, [], [1] * 99]
)
T5 = st.fixed_dictionaries({"source": SCALARS | st.sampled_from(["t5", "../t5", "{outside}"]), "length": NUMBERS})


@st.composite
def safetensors(draw: st.DrawFn, kind: str) -> bytes:
    """A header that says what it likes of tensors and settings, behind a length that may be another."""
    config = draw(changed(CONFIGS[kind], NUMBERS | JSON) | JSON)
    if kind == "text-words" and draw(st.integers(0, 3)) == 0:
        kind, config = "text-t5", draw(T5)
    metadata = draw(changed({"format": FORMAT, "kind": kind, "config": json.dumps(config)}, st.text(max_size=4) | JSON))
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header: dict[str, Any] = {"__metadata__": metadata, "w": draw(st.just(tensor) | changed(tensor, JSON | NUMBERS))}
    text = json.dumps(header).encode()
    length = draw(st.just(len(text)) | st.sampled_from([0, 2**40, 2**63, 100_000_001]))
    return struct.pack("<Q", length) + text + b"\0" * 8


def whole_model() -> dict[str, bytes]:
    settings = {kind: {"format": FORMAT, "kind": kind, "config": json.dumps(CONFIGS[kind])} for kind in CONFIGS}
    return {
        name: save_tensors({"w": torch.zeros(2)}, settings[kind]) for name, kind in zip(FILES, CONFIGS, strict=True)
    }


WHOLE = whole_model()


@st.composite
def models(draw: st.DrawFn) -> Case:
    files = dict(WHOLE)
    for name, kind in zip(FILES, CONFIGS, strict=True):
        if draw(st.booleans()):
            files[name] = draw(safetensors(kind) | damaged(WHOLE[name]))
    return Case(files=files)


def model_folder(root: Path, more: Any) -> None:
    try:
        read_model(root).load()
        raise AssertionError("a tensor w was taken for a model")
    except (CheckpointError, FileNotFoundError) as error:
        assert str(root) in str(error) or "T5" in str(error), error


# --- pickles


class Opens:
    """Unpickled, it creates a file: the sandbox would see it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("owned", "w")


def holding_itself() -> dict[str, Any]:
    content: dict[str, Any] = {"w": torch.zeros(2)}
    content["model"] = content
    return content


def official() -> dict[str, torch.Tensor]:
    return {
        "tok_embeddings.weight": torch.zeros(4, 8), "cls_embedding.uncond_embedding": torch.zeros(2, 3),
        "img_uncond_embedding": torch.zeros(4, 8), "alignment.bias": torch.zeros(5), "layers.0.w": torch.zeros(1),
        "quantize.embedding.weight": torch.zeros(4, 2),
    }  # fmt: skip


TENSORS = st.sampled_from([
    torch.zeros(()), torch.zeros(2), torch.zeros(0, 4), torch.zeros(1).expand(10**6, 10**6),
    torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta"), 
    torch.zeros(2, dtype=torch.complex64), torch.ones(2, dtype=torch.bool),
])  # fmt: skip
VALUES = TENSORS | SCALARS | st.builds(Opens) | st.builds(holding_itself)
ARGUMENTS = st.builds(lambda heads: argparse.Namespace(n_head=heads), NUMBERS | TENSORS) | VALUES


@st.composite
def contents(draw: st.DrawFn) -> Any:
    state: Any = draw(changed(official(), VALUES) | VALUES)
    for name in draw(st.lists(st.sampled_from(["model", "module", "state_dict", 3, "other"]), max_size=3)):
        state = {name: state}
    return {**state, "args": draw(ARGUMENTS)} if isinstance(state, dict) and draw(st.booleans()) else state


def saved(content: Any, kind: int) -> bytes:
    file = io.BytesIO()
    if kind == 2:
        pickle.dump(content, file)
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == 0)
    return file.getvalue()


pickle_cases = st.one_of(
    st.tuples(contents(), st.integers(0, 2)).map(lambda both: saved(*both)),
    st.sampled_from([saved({"model": official()}, kind) for kind in (0, 1)]).flatmap(damaged),
    st.binary(max_size=30),
).map(lambda content: Case(files={"weights.pt": content}))


def pickles(root: Path, more: Any) -> None:
    path = root / "weights.pt"
    try:
        assert all(isinstance(each, torch.Tensor) for each in read_tensors(path).values())
    except ValueError as error:
        refused_by_name(error, root)
    try:
        state, arguments = map_pickle(path)
        assert sum(each.nbytes for each in state.values()) <= 8 * path.stat().st_size and isinstance(arguments, dict)
        assert official_vq_config(path).codebook_size >= 1
        assert official_transformer_config(path).heads >= 1
    except CheckpointError as error:
        refused_by_name(error, root)


@cache
def shared_checkpoint() -> bytes:
    import torch.distributed.checkpoint as dcp

    with tempfile.TemporaryDirectory() as folder:
        dcp.save({"model": {"w": torch.ones(2)}, "adam": {"w": {"step": torch.zeros(())}}}, checkpoint_id=folder)
        return (Path(folder) / METADATA).read_bytes()


shared_cases = st.one_of(
    st.deferred(lambda: damaged(shared_checkpoint())),
    contents().map(lambda content: saved(content, 2)),
    st.binary(max_size=9),
).map(lambda content: Case(files={METADATA: content}))


def shared(root: Path, more: Any) -> None:
    try:
        metadata = TensorReader(root).read_metadata()
    except CheckpointError as error:
        return refused_by_name(error, root)
    assert all((root / each.relative_path).parent == root for each in metadata.storage_data.values())


# --- tokenizers

TOKENIZER = tokenizer_files({3: "▁", 4: "a", 5: "▁a"}, PARITY_TOKENS)
ADDED = json.loads(TOKENIZER["added_tokens.json"])


@st.composite
def tokenizers(draw: st.DrawFn) -> Case:
    added = draw(st.just(ADDED) | changed(ADDED, NUMBERS | JSON) | JSON)
    model = draw(st.just(TOKENIZER["tokenizer.model"]) | damaged(TOKENIZER["tokenizer.model"]))
    return Case(files={"tokenizer.model": model, "added_tokens.json": json.dumps(added).encode()})


def tokenizer(root: Path, more: Any) -> None:
    try:
        tokens = Tokens(root)
        ids = tokens.prompt("a").ids
        assert len(ids) > 2 * len(tokens.image) and max(ids) < tokens.count
        tokens.text(list(ids))
    except ValueError as error:
        refused_by_name(error, root)


PROMPTS = tokenizer_json()


@st.composite
def prompters(draw: st.DrawFn) -> Case:
    content = draw(changed(PROMPTS, JSON))
    if draw(st.booleans()):
        content |= {"model": draw(changed(PROMPTS["model"], NUMBERS | JSON))}
    whole = json.dumps(content).encode()
    return Case(files={"tokenizer.json": draw(st.just(whole) | st.just(whole[: len(whole) // 2]) | DEEP)})


def prompter(root: Path, more: Any) -> None:
    try:
        found = Prompter(root / "tokenizer.json", 32011)
        prompt = found.prompt("a", 2)
        assert prompt.count(found.special.patch) == 2
        found.text(prompt)
    except CheckpointError as error:
        refused_by_name(error, root)


# --- language models

LLAMA: dict[str, Any] = {
    "hidden_act": "silu", "vocab_size": 6, "hidden_size": 8, "intermediate_size": 4, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "rope_scaling": None,
}  # fmt: skip
LAYER = {
    **{f"self_attn.{name}_proj.weight": torch.zeros(8, 8) for name in "qkvo"},
    **{f"mlp.{name}_proj.weight": torch.zeros(4, 8) for name in ("gate", "up")},
    "mlp.down_proj.weight": torch.zeros(8, 4),
    **{f"{name}_layernorm.weight": torch.zeros(8) for name in ("input", "post_attention")},
}
SHARDS = {
    "a.safetensors": {f"model.layers.0.{name}": tensor for name, tensor in LAYER.items()},
    "b.safetensors": {
        "model.embed_tokens.weight": torch.zeros(6, 8), "lm_head.weight": torch.zeros(6, 8),
        "model.norm.weight": torch.zeros(8),
    },
}  # fmt: skip
WHOLE_SHARDS = {name: save_tensors(tensors) for name, tensors in SHARDS.items()}
PLACES = {name: file for file, tensors in SHARDS.items() for name in tensors}


@st.composite
def language_models(draw: st.DrawFn) -> Case:
    files = st.sampled_from(["../secret.json", "a.safetensors", "c.safetensors"])
    places = draw(st.just(PLACES) | changed(PLACES, SCALARS | files) | JSON)
    index = {"weight_map": places} if draw(st.integers(0, 5)) else places
    config = draw(st.just(LLAMA) | changed(LLAMA, NUMBERS | JSON) | JSON)
    shards = {name: draw(st.just(content) | damaged(content)) for name, content in WHOLE_SHARDS.items()}
    texts = {"config.json": config, "model.safetensors.index.json": index}
    return Case(files=shards | {name: json.dumps(content).encode() for name, content in texts.items()})


def language_model(root: Path, more: Any) -> None:
    try:
        model = read_llama(root, dtype=torch.float16)
        assert model.state_dict().keys() == PLACES.keys() and model.dtype == torch.float16
    except CheckpointError as error:
        refused_by_name(error, root)


# --- settings

TOML_VALUES = st.sampled_from([
    "1", "-1", "nan", "inf", "1e400", "true", '""', '"a"', "[]", "[1]", '["a\\u0000"]', '["{folder}"]', "{}", "{a = 1}",
    "1979-05-27", "99999999999999999999999999", '"../../x"', "[[[[]]]]", '["${HOME}", "{folder}"]',
    '["; touch owned {folder}"]',
])  # fmt: skip


def toml(names: tuple[str, ...], whole: bytes) -> st.SearchStrategy[Case]:
    made = st.dictionaries(st.sampled_from(names), TOML_VALUES, max_size=len(names)).map(
        lambda values: "\n".join(f"{name} = {value}" for name, value in values.items()).encode()
    )
    deep = st.sampled_from([b"name = " + b"[" * 100_000, b"name = " + b"{a = " * 5000, b'name = "\xff"'])
    return (text_file(whole, made) | deep).map(lambda content: Case(files={"settings.toml": content}))


recipe_cases = toml(
    ("name", "command", "timeout_seconds", "files", "answer_side", "settings", "other"),
    b'name = "mine"\ncommand = ["python", "edit.py", "{folder}"]\ntimeout_seconds = 5\n[settings]\nsteps = 50\n',
)
training_cases = toml(
    ("out", "device", "previews", "model.source", "model.size", "data.sources", "data.workers", "data.block",
     "training.steps", "training.batch_size", "training.rate", "distillation.weight", "other"),
    b'out = "run"\n[model]\n[data]\nsources = [{kind = "pairs", folder = "x"}]\n[training]\nsteps = 1\n',
)  # fmt: skip


def recipe(root: Path, more: Any) -> None:
    try:
        found = read_recipe(root / "settings.toml")
    except ValueError as error:
        return refused_by_name(error, root)
    assert found.name and any("{folder}" in part for part in found.command) and found.timeout_seconds > 0


def training(root: Path, more: Any) -> None:
    try:
        assert parse(root / "settings.toml").data.sources
    except ValueError as error:
        refused_by_name(error, root)
