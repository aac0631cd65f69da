"""SEED-X-Edit, small, in the layout of the official files; shapes and values are those of tests/parity."""

import ast
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from baselines.seed_x.de_tokenizer import DeTokenizer, read_de_tokenizer
from baselines.seed_x.language_model import LanguageModel, read_language_model
from baselines.seed_x.seed_x import Procedure
from tests.parity.hashfill import hashfill

PARITY = Path(__file__).parents[1] / "parity"
SIDE = 16  # of its images, in pixels
TINY = Procedure(new_tokens=100, steps=4, vision_heads=4, agent_heads=4, de_tokenizer_heads=4)
TOKENIZER = "seed-x-17b-edit/cvlm_llama2_tokenizer_100img_and_224loc_addpatch"
SECOND_STAGE = "seed-x-17b-de-tokenizer/second_stage/pytorch_model.bin"
AGENT = "seed-x-17b-edit/agent/pytorch_model.bin"
# Where the added tokens begin and end, and where the image tokens begin: for the parity values, as published.
PARITY_TOKENS, PUBLISHED_TOKENS = (90, 170, 100), (32000, 32330, 32006)
# The numbers that LLaMA's vocabulary has for these pieces, and, wherever there is room, the halves that merge to them.
PIECES = {
    278: "▁the", 372: "▁it", 518: "▁[", 842: "set", 1090: "▁under", 6575: "▁sun", 8561: "▁Make", 25580: "INST",
    29871: "▁", 29914: "/", 29962: "]",
}  # fmt: skip
LLM: dict[str, Any] = {  # as the published config.json has it, sizes aside
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64,
    "intermediate_size": 112, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "vocab_size": 170, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0, "pretraining_tp": 2, "rope_scaling": None, "tie_word_embeddings": False,
    "torch_dtype": "float32", "use_cache": True,
}  # fmt: skip
UNET: dict[str, Any] = {  # SDXL's own: it reads 4 channels
    "_class_name": "UNet2DConditionModel", "sample_size": SIDE // 2, "in_channels": 4, "out_channels": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [32, 64], "layers_per_block": 1, "transformer_layers_per_block": [1, 2],
    "attention_head_dim": [2, 4], "cross_attention_dim": 64, "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 88,
    "norm_num_groups": 8,
}  # fmt: skip
SCHEDULER: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon", "steps_offset": 1,
    "timestep_spacing": "leading", "use_karras_sigmas": False,
}  # fmt: skip


def published_state(boi_row: Tensor) -> dict[str, dict[str, Tensor]]:
    """The tensors of the parts "vit", "agent", "vae" and "adapter" by name, filled as tests/parity/README.md says.

    boi_row: of the language model's output layer, the row of `<img>`.
    """
    parts = {part: hashfill(zeros) for part, zeros in _zeros()}
    parts["agent"]["llm.lm_head.weight"] *= 8
    parts["agent"]["llm.lm_head.weight"][90] = boi_row
    for layer in range(2):
        parts["adapter"][f"resampler.layers.{layer}.1.0.weight"] += 1
    return parts


def _zeros() -> Iterator[tuple[str, dict[str, Tensor]]]:
    for block in (PARITY / "seed_x_tiny_keys.txt").read_text().strip().split("# ")[1:]:
        part, *lines = block.strip().splitlines()
        shapes = (line.split(" ", 1) for line in lines)
        yield part, {name: torch.zeros(ast.literal_eval(shape)) for name, shape in shapes}


def llama_pieces() -> dict[int, str]:
    """PIECES and all beginnings of them, at numbers that nothing else has."""
    words = sorted({piece[:end] for piece in PIECES.values() for end in range(1, len(piece))} - set(PIECES.values()))
    return {**{20000 + place: word for place, word in enumerate(words)}, **PIECES}


def write_weights(folder: Path, parts: Mapping[str, Mapping[str, Tensor]]) -> Path:
    """parts: of `published_state`; the language model may have more tokens."""
    agent = {name: tensor for name, tensor in parts["agent"].items() if not name.startswith("llm.")}
    llm = {name.removeprefix("llm."): tensor for name, tensor in parts["agent"].items() if name.startswith("llm.")}
    save(folder / AGENT, agent)
    save(folder / SECOND_STAGE, parts["adapter"])
    write_shards(folder / "seed-x-17b-edit" / "llm", llm, 6, range(6))
    write_json(folder / "seed-x-17b-edit" / "llm" / "config.json", {**LLM, "vocab_size": len(llm["lm_head.weight"])})
    vision = {f"transformer.visual.{name}": tensor for name, tensor in parts["vit"].items()}
    qwen = {**{f"transformer.h.{layer}.weight": torch.zeros(1) for layer in range(3 * len(vision))}, **vision}
    write_shards(folder / "Qwen-VL-Chat", qwen, 10, (7, 8, 9))
    sdxl = folder / "stable-diffusion-xl-base-1.0"
    write_json(sdxl / "unet" / "config.json", UNET)
    write_json(sdxl / "scheduler" / "scheduler_config.json", SCHEDULER)
    vae: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32), layers_per_block=1, latent_channels=4, norm_num_groups=8, scaling_factor=0.13025,
    )  # fmt: skip
    vae.save_config(sdxl / "vae")
    save_file(dict(parts["vae"]), sdxl / "vae" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return folder


def tiny_language_model(folder: Path) -> LanguageModel:
    return read_language_model(
        folder / "seed-x-17b-edit", folder / "Qwen-VL-Chat", vision_heads=TINY.vision_heads,
        agent_heads=TINY.agent_heads, new_tokens=TINY.new_tokens, dtype=torch.float32, device="cpu",
    )  # fmt: skip


def tiny_de_tokenizer(folder: Path) -> DeTokenizer:
    sdxl = folder / "stable-diffusion-xl-base-1.0"
    heads = TINY.de_tokenizer_heads
    return read_de_tokenizer(folder / SECOND_STAGE, sdxl, heads=heads, dtype=torch.float32, device="cpu")


def write_shards(folder: Path, state: Mapping[str, Tensor], count: int, kept: Iterable[int]) -> None:
    """In `count` files with their index, of which only some are written."""
    names = list(state)
    files = [f"pytorch_model-{number + 1:05d}-of-{count:05d}.bin" for number in range(count)]
    places = {name: files[place * count // len(names)] for place, name in enumerate(names)}
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": places})
    for number in kept:
        save(folder / files[number], {name: state[name] for name in names if places[name] == files[number]})


def save(path: Path, content: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.clone() for name, tensor in content.items()}, path)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_tokenizer(folder: Path, pieces: Mapping[int, str], added: tuple[int, int, int]) -> Path:
    """For the arguments see `tokenizer_files`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tokenizer_files(pieces, added).items():
        (folder / name).write_bytes(content)
    return folder


def tokenizer_files(pieces: Mapping[int, str], added: tuple[int, int, int]) -> dict[str, bytes]:
    """tokenizer.model with LLaMA's settings, and added_tokens.json. pieces: by their numbers, what texts may be made
    of besides bytes. added: as PUBLISHED_TOKENS."""
    first, end, images = added
    tokens = ["<img>", "</img>", "<patch>", "</patch>", "<box_start>", "<box_end>"]
    tokens += [f"<unused-{number}>" for number in range(images - first - len(tokens))]
    tokens += [f"<img_{number:05d}>" for number in range(100)] + [f"<loc-{number}>" for number in range(224)]
    numbers = {token: number for number, token in zip(range(first, end), tokens, strict=False)}
    return {"tokenizer.model": _sentencepiece_model(pieces, first), "added_tokens.json": json.dumps(numbers).encode()}


def _sentencepiece_model(pieces: Mapping[int, str], count: int) -> bytes:
    """A ModelProto of sentencepiece_model.proto: byte-pair merges in the order of the pieces' numbers."""
    normal, unknown, control, byte = 1, 2, 3, 6
    special = {0: ("<unk>", unknown), 1: ("<s>", control), 2: ("</s>", control)}
    if count > 3 + 256:
        special |= {3 + value: (f"<0x{value:02X}>", byte) for value in range(256)}
    model = b""
    for number in range(count):
        text, kind = special.get(number, (pieces.get(number, f"\ue000{number}"), normal))
        piece = _field(1, text.encode()) + b"\x15" + struct.pack("<f", -number) + _field(3, kind)
        model += _field(1, piece)
    bpe, byte_fallback = _field(3, 2), _field(35, int(count > 3 + 256))
    keeps_blanks = _field(4, 0)  # instead of runs of them as one
    return model + _field(2, bpe + byte_fallback) + _field(3, keeps_blanks)


def _field(number: int, value: int | bytes) -> bytes:
    """In the wire format of protocol buffers."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    digits = [value & 127]
    while value := value >> 7:
        digits.append(value & 127)
    return bytes([digit | 128 for digit in digits[:-1]] + digits[-1:])
