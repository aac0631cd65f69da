"""MGIE's mllm.pt with random values, its names and shapes written down from the published module and not from ours."""

from pathlib import Path

import torch
from torch import Tensor

from baselines.mgie.edit_head import EditHeadSizes

TINY = EditHeadSizes(hidden=12, width=16, feed_forward=24, layers=2, features=16)


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
    shapes |= {name: (20, sizes.hidden) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    shapes["emb"] = (1, sizes.tokens, sizes.hidden)
    generator = torch.Generator().manual_seed(seed)
    return {name: (torch.randn(shape, generator=generator) * 0.4).half() for name, shape in shapes.items()}


def write_mllm(path: Path, sizes: EditHeadSizes = TINY, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(random_mllm(sizes, seed), path)
    return path
