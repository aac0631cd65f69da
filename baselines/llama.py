"""LLaMA 1 and 2 for the methods that begin with a language model: transformers' class, filled strictly with the
authors' tensors, and greedy decoding that keeps the hidden states.

Not by `from_pretrained`: it takes other architectures for these ("llava" is a later one), and leaves random what a
checkpoint lacks.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from editar.io.tensors import CheckpointError, State, fill, read_tensors

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# One file, or the index of several, in the order in which they are taken.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
BUFFER = "rotary_emb.inv_freq"  # old versions of transformers stored it with the weights; it follows from the config
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# What a configuration may say or leave out. Any other value makes another model of the same tensors.
FIXED = {
    "hidden_act": "silu", "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
    "tie_word_embeddings": False,
}  # fmt: skip
ROPE_THETA, POSITIONS = 10_000.0, 2048  # of configurations that do not say
LARGEST = 2**24  # of numbers in a configuration; LLaMA's are far below


def read_config(folder: Path) -> LlamaConfig:
    """Of the folder's config.json, whatever it calls the architecture. Raises CheckpointError where a field is missing
    or makes it another model than LLaMA 1 or 2."""
    path = folder / "config.json"
    given = read_json(path)
    for name in (*SIZES, "num_key_value_heads", "max_position_embeddings"):
        value = given.get(name)
        if (value is None and name in SIZES) or not (value is None or is_size(value)):
            raise CheckpointError(f"{path}: {name} is {value!r:.99}; it must be a whole number from 1 to {LARGEST}")
    for name in ("rms_norm_eps", "rope_theta"):
        value = given.get(name, ROPE_THETA if name == "rope_theta" else None)
        if not isinstance(value, int | float) or not 0 < value <= LARGEST:
            raise CheckpointError(f"{path}: {name} is {value!r:.99}; it must be a number above 0, at most {LARGEST}")
    for name, wanted in FIXED.items():
        if given.get(name, wanted) != wanted:
            raise CheckpointError(
                f"{path}: {name} is {given[name]!r:.99}; LLaMA has {wanted!r}, and this another model"
            )
    if given["hidden_size"] % given["num_attention_heads"]:
        raise CheckpointError(
            f"{path}: hidden_size {given['hidden_size']} is no multiple of num_attention_heads "
            f"{given['num_attention_heads']}"
        )
    return LlamaConfig(
        **{name: given[name] for name in SIZES},
        num_key_value_heads=given.get("num_key_value_heads"),
        rms_norm_eps=given["rms_norm_eps"],
        max_position_embeddings=given.get("max_position_embeddings") or POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": float(given.get("rope_theta", ROPE_THETA))},
        bos_token_id=None,
        eos_token_id=None,  # `write` is told
    )


def map_weights(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a folder by name, mapped from its file or its shards and of their dtypes.

    prefix: only the tensors of such names, which are given without it; other shards need not be there.
    Raises CheckpointError naming the files that are missing, and for a tensor that is in two of them.
    """
    state: dict[str, Tensor] = {}
    for path in _weight_files(folder, prefix):
        found = read_tensors(path).items()
        wanted = (each for each in found if each[0].startswith(prefix) and not each[0].endswith(BUFFER))
        tensors = {name.removeprefix(prefix): tensor for name, tensor in wanted}
        if twice := sorted(state.keys() & tensors.keys()):
            raise CheckpointError(f"{path}: {twice[0]} is in another shard too; get the folder's files again")
        state |= tensors
    return state


def read_llama(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
    replaced: Callable[[], State] = dict,
    beside: Collection[str] = (),
) -> LlamaForCausalLM:
    """The model of a folder, in evaluation mode. Each tensor is cast as it is read, so that main memory holds the model
    in its `dtype`, and on a GPU next to nothing, beside what `editar.io.tensors.copies` has mapped.

    replaced: maps tensors that take the place of the folder's; those of EMBEDDINGS and HEAD may have another number of
    tokens. beside: names of tensors in the folder that are not LLaMA's, which `map_weights` gives. Raises
    CheckpointError naming every missing, unexpected and misshapen tensor.
    """
    config = read_config(folder)

    def mapped() -> State:
        state = map_weights(folder)
        return {name: tensor for name, tensor in state.items() if name not in beside} | dict(replaced())

    state = mapped()
    if not any(name.startswith(f"model.layers.{config.num_hidden_layers - 1}.") for name in state):
        # Before a model of that many is built.
        raise CheckpointError(f"{folder}: config.json says {config.num_hidden_layers} layers; the last is in no file")
    if EMBEDDINGS in replaced() and state[EMBEDDINGS].ndim == 2:
        config.vocab_size = len(state[EMBEDDINGS])
    del state  # which would keep the files mapped
    model = fill(lambda: LlamaForCausalLM(config), mapped, folder, dtype=dtype, device=device)
    rotary = type(model.model.rotary_emb)
    model.model.rotary_emb = rotary(config).to(device)  # its angles are no tensors of the file, and stay float32
    return model.requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class Written:
    """tokens: the prompt's and the answer's. states: (tokens - 1, hidden), of the last layer after its norm, one for
    each token that was read: the last one was not."""

    tokens: list[int]
    states: Tensor


@torch.inference_mode()
def write(
    model: LlamaForCausalLM,
    prompt: Sequence[int],
    embeddings: Tensor,
    *,
    new_tokens: int,
    ends: Sequence[int],
    no_repeat: int = 0,
    processors: Sequence[LogitsProcessor] = (),
    stops: Sequence[StoppingCriteria] = (),
) -> Written:
    """Greedy decoding of one prompt.

    prompt: its tokens, which are counted by all that looks back. embeddings: (prompt, hidden), what is read in their
    place. new_tokens: at most. ends: the tokens that end the answer. no_repeat: so many tokens never stand twice in the
    same order, in prompt and answer; 0: they may. processors, stops: transformers' kind; both see prompt and answer.
    """
    assert embeddings.shape == (len(prompt), model.config.hidden_size), "an embedding for each token"
    ids = torch.tensor([list(prompt)], device=embeddings.device)
    untyped: Any = model  # by its types, transformers' `generate` is no method of its models
    output = untyped.generate(
        input_ids=ids,  # without them, what looks back would see the answer alone
        inputs_embeds=embeddings[None].to(model.dtype),
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=new_tokens,
            no_repeat_ngram_size=no_repeat or None,
            eos_token_id=list(ends),
            pad_token_id=0,  # plays no part with one prompt, and transformers warns without it
            use_cache=True,
            return_dict_in_generate=True,
            output_hidden_states=True,
        ),
        logits_processor=LogitsProcessorList(processors),
        stopping_criteria=StoppingCriteriaList(stops),
    )
    # Of each step the last layer: of the first for the whole prompt, of every later one for a token.
    states = torch.cat([layers[-1][0] for layers in output.hidden_states])
    return Written(tokens=output.sequences[0].tolist(), states=states)


def _weight_files(folder: Path, prefix: str) -> list[Path]:
    """Of the tensors whose names begin with `prefix`. Raises CheckpointError where one is missing."""
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"{folder} has none of {', '.join(WEIGHTS)}; put the whole folder there")
    if found.suffix != ".json":
        return [found]
    places = read_json(found).get("weight_map")
    if not isinstance(places, dict) or not places or not all(map(_is_filename, places.values())):
        raise CheckpointError(f"{found}: its weight_map does not say which tensor is in which file beside it")
    files = [folder / file for file in sorted({file for name, file in places.items() if name.startswith(prefix)})]
    if absent := [path.name for path in files if not path.is_file()]:
        raise CheckpointError(
            f"{folder} lacks {len(absent)} of its {len(files)} shards, {', '.join(absent)}; put the whole folder there"
        )
    return files


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable JSON file: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content


def is_size(value: object) -> bool:
    """Whether a value of a configuration can be the size of something."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST


def _is_filename(name: object) -> bool:
    return isinstance(name, str) and bool(name) and Path(name).name == name
