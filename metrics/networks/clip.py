"""CLIP ViT-L/14 (Radford et al. 2021) for CLIP similarity, from a folder in transformers' format."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from editar.io.tensors import read_tensors
from metrics.networks.official import Found
from metrics.networks.vit import Block, ClassTokenHead, VisionTransformer, ViTConfig, batch_size, fold_constants, load

# transformers' CLIPImageProcessor.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
# Configurations written before 2023 name 2 as the end of a text, which it is not: the pooled token was the one with the
# highest id, which is the end token. transformers and the released evaluator go by that.
LEGACY_END = 2


class OfficialClip:
    """Embeddings equal to those that torchmetrics' CLIPScore gets from transformers.

    The text tower is float32 in either precision: it runs once a prompt for all methods.
    """

    def __init__(self, weights: Found, *, device: str = "cpu", precision: str = "float32") -> None:
        from transformers import CLIPConfig, CLIPTokenizer

        self.name = weights.label("clip-vit-large-patch14")
        self.official = weights.official
        self.digest = weights.digest
        config = CLIPConfig.from_pretrained(weights.folder)
        state = read_tensors(weights.path)
        try:
            self.projection = state["visual_projection.weight"].float().to(device)
            vision = _vision_config(config.vision_config)
            with torch.device("meta"):
                self.image_tower = VisionTransformer(vision, ClassTokenHead(vision))
            load(self.image_tower, fold_constants(_image_tower(state, vision), vision), device, precision)
            text = _text_config(config.text_config)
            with torch.device("meta"):
                self.text_tower = TextTower(text, config.text_config, len(self.projection))
            load(self.text_tower, fold_constants(_text_tower(state, text), text), device, "float32")
        except KeyError as error:
            raise ValueError(f"{weights.path}: no tensor {error}: not a CLIP model in transformers' format") from None
        self.side = vision.side
        self.batch = batch_size(vision, device)
        self.tokenizer = CLIPTokenizer.from_pretrained(weights.folder)
        self.mean = 255 * torch.tensor(PIXEL_MEAN, device=device).view(3, 1, 1)
        self.std = 255 * torch.tensor(PIXEL_STD, device=device).view(3, 1, 1)

    def image_embedding(self, images: Tensor) -> Tensor:
        """8-bit images (B, 3, H, W) in [0, 1] to unit vectors (B, 768)."""
        parts = [self.image_tower(self._prepare(part)) for part in images.split(self.batch)]
        return F.normalize(F.linear(torch.cat(parts), self.projection), dim=-1)

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit vectors (B, 768). A text is cut off at 77 tokens, its end token too: torchmetrics does that."""
        tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt")["input_ids"]
        return F.normalize(self.text_tower(tokens.to(self.projection.device)), dim=-1)

    def _prepare(self, images: Tensor) -> Tensor:
        """transformers' image processor for uint8 tensors: bicubic on the CPU in 8 bits, then a centred square."""
        pixels = (images * 255).round().to("cpu", torch.uint8)
        height, width = pixels.shape[-2:]
        short = min(height, width)
        if short != self.side:
            size = (self.side * height // short, self.side * width // short)
            pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
        top, left = ((n - self.side) // 2 for n in pixels.shape[-2:])
        pixels = pixels[..., top : top + self.side, left : left + self.side]
        return (pixels.to(self.mean) - self.mean) / self.std


class TextTower(nn.Module):
    """CLIP's causal text transformer: token ids (B, N) to projected embeddings of the end token (B, D)."""

    def __init__(self, config: ViTConfig, official: Any, projection_dim: int) -> None:
        super().__init__()
        self.end_token = official.eos_token_id
        self.length = official.max_position_embeddings
        self.token_embedding = nn.Embedding(official.vocab_size, config.width)
        self.positions = nn.Parameter(torch.empty(self.length, config.width))
        self.blocks = nn.Sequential(*(Block(config, causal=True) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.projection = nn.Linear(config.width, projection_dim, bias=False)

    def forward(self, tokens_BN: Tensor) -> Tensor:
        tokens_BN = tokens_BN[:, : self.length]
        x_BND = self.token_embedding(tokens_BN) + self.positions[: tokens_BN.shape[1]]
        x_BND = self.blocks(x_BND)
        is_end = tokens_BN if self.end_token == LEGACY_END else (tokens_BN == self.end_token).int()
        ends_BD = x_BND[torch.arange(len(x_BND)), is_end.argmax(-1)]
        return self.projection(self.norm(ends_BD))


def _vision_config(official: Any) -> ViTConfig:
    return _tower_config(official, side=official.image_size, patch=official.patch_size)


def _text_config(official: Any) -> ViTConfig:
    return _tower_config(official)


def _tower_config(official: Any, **image: int) -> ViTConfig:
    if official.hidden_act != "quick_gelu":
        raise ValueError(f"CLIP's activation {official.hidden_act!r} must be 'quick_gelu', as OpenAI's models have")
    return ViTConfig(
        width=official.hidden_size,
        depth=official.num_hidden_layers,
        heads=official.num_attention_heads,
        eps=official.layer_norm_eps,
        clip=True,
        **image,
    )


def _image_tower(official: dict[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    """transformers' names to ours; the last layer becomes the head."""
    root = "vision_model."
    state = {
        "cls_token": official[root + "embeddings.class_embedding"].view(1, 1, -1),
        "pos_embed": official[root + "embeddings.position_embedding.weight"][None],
        "patch_embed.weight": official[root + "embeddings.patch_embedding.weight"],
    }
    for part in ("weight", "bias"):
        state[f"norm_pre.{part}"] = official[f"{root}pre_layrnorm.{part}"]
        state[f"head.post.{part}"] = official[f"{root}post_layernorm.{part}"]
    for i in range(config.depth - 1):
        state |= _block(official, f"{root}encoder.layers.{i}.", f"blocks.{i}.")
    last = _block(official, f"{root}encoder.layers.{config.depth - 1}.", "head.")
    for part in ("weight", "bias"):
        qkv = last.pop(f"head.attn.qkv.{part}")
        last[f"head.query.{part}"] = qkv[: config.width]
        last[f"head.key_value.{part}"] = qkv[config.width :]
        last[f"head.proj.{part}"] = last.pop(f"head.attn.proj.{part}")
    return state | last


def _text_tower(official: dict[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    root = "text_model."
    state = {
        "token_embedding.weight": official[root + "embeddings.token_embedding.weight"],
        "positions": official[root + "embeddings.position_embedding.weight"],
        "norm.weight": official[root + "final_layer_norm.weight"],
        "norm.bias": official[root + "final_layer_norm.bias"],
        "projection.weight": official["text_projection.weight"],
    }
    for i in range(config.depth):
        state |= _block(official, f"{root}encoder.layers.{i}.", f"blocks.{i}.")
    return state


def _block(official: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    names = {"norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    names["attn.proj"] = "self_attn.out_proj"
    block = {}
    for part in ("weight", "bias"):
        qkv = [official[f"{theirs}self_attn.{x}_proj.{part}"] for x in "qkv"]
        block[f"{ours}attn.qkv.{part}"] = torch.cat(qkv)
        block |= {f"{ours}{mine}.{part}": official[f"{theirs}{name}.{part}"] for mine, name in names.items()}
    return block
