"""A language model's folder as its authors publish it, and the weights of tests/parity, filled by name."""

import json
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PARITY = Path(__file__).parents[1] / "parity"
_LINE = re.compile(r"(\S+) \(([\d, ]*)\)")
# Of the tiny models of tests/parity, as far as MGIE's and SEED-X' agree.
CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 2048, "tie_word_embeddings": False, "torch_dtype": "float16",
}  # fmt: skip
MGIE_CONFIG = {**CONFIG, "vocab_size": 96, "rms_norm_eps": 1e-6, "model_type": "llava"}


def hash_filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    fill = runpy.run_path(str(PARITY / "hashfill.py"))["hashfill"]
    return fill({name: torch.zeros(shape) for name, shape in shapes.items()})


def parity_weights(keys: str) -> dict[str, Tensor]:
    """The weights of tests/parity/<keys>, hash-filled."""
    lines = map(_LINE.fullmatch, (PARITY / keys).read_text().splitlines())
    return hash_filled({line[1]: tuple(map(int, re.findall(r"\d+", line[2]))) for line in lines if line})


def mgie_weights() -> dict[str, Tensor]:
    state = parity_weights("mgie_tiny_keys.txt")
    state["lm_head.weight"] *= 8
    return state


def mgie_language_model() -> dict[str, Tensor]:
    """What LLaVA's folder holds of these."""
    return {name: tensor for name, tensor in mgie_weights().items() if not name.startswith("edit_head.")}


def write_config(folder: Path, config: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_shards(folder: Path, state: Mapping[str, Tensor], shards: int = 2) -> Path:
    """pytorch_model-0000i-of-0000n.bin and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(state)
    places: dict[str, str] = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = names[number::shards]
        torch.save({name: state[name].clone() for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder
