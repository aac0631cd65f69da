"""MGIE's files with random values, their names and shapes written down from the published ones and not from ours."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from baselines.llama import EMBEDDINGS, HEAD
from baselines.mgie.edit_head import EditHeadSizes
from baselines.mgie.mgie import LLAVA_7B
from tests.baselines.llama_layout import write_config, write_shards
from tests.baselines.llama_tokenizer import LLAVA_TOKENS, SIZE, write_tokenizer

TINY = EditHeadSizes(hidden=12, width=16, feed_forward=24, layers=2, features=16)
VOCABULARY, VISION_WIDTH = SIZE + len(LLAVA_TOKENS), 8


def attention(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.in_proj_weight": (3 * width, width),
        f"{prefix}.in_proj_bias": (3 * width,),
        f"{prefix}.out_proj.weight": (width, width),
        f"{prefix}.out_proj.bias": (width,),
    }


def linear(prefix: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": (outputs, inputs), f"{prefix}.bias": (outputs,)}


def norm(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": (width,), f"{prefix}.bias": (width,)}


def head_shapes(sizes: EditHeadSizes) -> dict[str, tuple[int, ...]]:
    width = sizes.width
    shapes: dict[str, tuple[int, ...]] = {"query": (1, sizes.queries, width)}
    shapes |= linear("llm2hid", sizes.hidden, width) | linear("hid2feat", width, sizes.features)
    for part, attentions, norms in (("encoder", ["self_attn"], 2), ("decoder", ["self_attn", "multihead_attn"], 3)):
        for layer in range(sizes.layers):
            prefix = f"mapper.{part}.layers.{layer}"
            for name in attentions:
                shapes |= attention(f"{prefix}.{name}", width)
            for number in range(norms):
                shapes |= norm(f"{prefix}.norm{number + 1}", width)
            shapes |= linear(f"{prefix}.linear1", width, sizes.feed_forward)
            shapes |= linear(f"{prefix}.linear2", sizes.feed_forward, width)
        shapes |= norm(f"mapper.{part}.norm", width)
    return {f"edit_head.{name}": shape for name, shape in shapes.items()}


def random_mllm(sizes: EditHeadSizes, seed: int = 0) -> dict[str, Tensor]:
    """With what is in the file beside the head: embeddings and output layer of the language model."""
    shapes = head_shapes(sizes)
    shapes |= {name: (VOCABULARY + 8, sizes.hidden) for name in (EMBEDDINGS, HEAD)}
    shapes["emb"] = (1, sizes.tokens, sizes.hidden)
    return _random(shapes, seed)


def write_mllm(path: Path, state: dict[str, Tensor] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(random_mllm(TINY) if state is None else state, path)
    return path


def write_llava(folder: Path, mllm: dict[str, Tensor], seed: int = 7) -> Path:
    """LLaVA-7B-v1, from whose embeddings those in `mllm` were tuned."""
    width, inner = TINY.hidden, 20
    shapes: dict[str, tuple[int, ...]] = {"model.norm.weight": (width,), HEAD: (VOCABULARY, width)}
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.self_attn.{name}_proj.weight": (width, width) for name in "qkvo"}
        shapes |= {f"{prefix}.mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        shapes |= {f"{prefix}.mlp.down_proj.weight": (width, inner)}
        shapes |= {f"{prefix}.{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
    shapes |= linear("model.mm_projector", VISION_WIDTH, width)
    state = _random(shapes, seed)
    buffers = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(3) for layer in range(2)}
    write_shards(folder, {EMBEDDINGS: mllm[EMBEDDINGS][:VOCABULARY], **state, **buffers})
    config = {
        "model_type": "llava", "hidden_act": "silu", "vocab_size": VOCABULARY, "hidden_size": width,
        "intermediate_size": inner, "num_hidden_layers": 2, "num_attention_heads": 2, "rms_norm_eps": 1e-6,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1, "mm_hidden_size": VISION_WIDTH,
        "mm_use_im_start_end": True, "mm_vision_select_layer": -2,
    }  # fmt: skip
    write_config(folder, config)
    write_tokenizer(folder / "tokenizer.json")
    for name in LLAVA_7B.files:
        if not (folder / name).exists():
            (folder / name).write_text(name)
    return folder


def write_clip(folder: Path, vision: dict[str, Tensor] | None = None, **sizes: int) -> Path:
    """CLIP as its whole: a vision tower of `sizes` with these weights (random ones without), and more."""
    given = {
        "hidden_size": VISION_WIDTH, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14, **sizes,
    }  # fmt: skip
    if vision is None:
        vision = _random(vision_shapes(given["hidden_size"], given["intermediate_size"]), 9)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "clip", "vision_config": {"model_type": "clip_vision_model", **given}}
    (folder / "config.json").write_text(json.dumps(config))
    processor = {
        "crop_size": 28, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 28,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    others = {
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
        "text_model.final_layer_norm.bias": torch.zeros(3),
        "logit_scale": torch.tensor(1.0),
    }
    save_file(vision | others, folder / "model.safetensors")
    return folder


def vision_shapes(width: int, inner: int, layers: int = 3) -> dict[str, tuple[int, ...]]:
    """Of CLIP's vision tower for four patches of 14 pixels."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (width,),
        "embeddings.patch_embedding.weight": (width, 3, 14, 14),
        "embeddings.position_embedding.weight": (5, width),
        **norm("pre_layrnorm", width),
        **norm("post_layernorm", width),
    }
    for layer in range(layers):
        prefix = f"encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{prefix}.self_attn.{name}", width, width)
        shapes |= linear(f"{prefix}.mlp.fc1", width, inner) | linear(f"{prefix}.mlp.fc2", inner, width)
        shapes |= norm(f"{prefix}.layer_norm1", width) | norm(f"{prefix}.layer_norm2", width)
    return {f"vision_model.{name}": shape for name, shape in shapes.items()}


def _random(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: (torch.randn(shape, generator=generator) * 0.4).half() for name, shape in shapes.items()}
