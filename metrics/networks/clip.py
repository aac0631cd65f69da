"""CLIP ViT-L/14 (Radford et al. 2021) for CLIP similarity, from a folder in transformers' format."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from editar.io.tensors import Uninitialised, read_tensors
from metrics.networks.official import Found, OfficialNetwork
from metrics.networks.vit import ClassTokenHead, VisionTransformer, ViTConfig, batch_size, fold_constants, load

NAME = "clip-vit-large-patch14"
# Of its config.json: all that decides what is computed with the weights.
PUBLISHED = {
    "vision_config": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "patch_size": 14, "image_size": 224, "layer_norm_eps": 1e-5,
    },
    "text_config": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "max_position_embeddings": 77, "layer_norm_eps": 1e-5,
    },
}  # fmt: skip


class OfficialClip(OfficialNetwork):
    """Embeddings equal to those that torchmetrics' CLIPScore gets from transformers.

    The text tower is transformers' own, float32 in either precision: it runs once a prompt for all methods. A folder
    with another CLIP in it (patch 16, say) is named by its configuration, and is not official; nor is one with another
    vocabulary.
    """

    def __init__(self, weights: Found, *, device: str = "cpu", precision: str = "float32") -> None:
        from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextModelWithProjection, CLIPTokenizer

        config: Any = CLIPConfig.from_pretrained(weights.folder)
        name = _name(config)
        self.tokenizer = CLIPTokenizer.from_pretrained(weights.folder)
        official = weights.official and name == NAME and has_published_vocabulary(self.tokenizer)
        super().__init__(replace(weights, official=official), name, device)
        state = read_tensors(weights.path)
        try:
            self.projection = state["visual_projection.weight"].float().to(device)
            vision = _vision_config(config.vision_config)
            with torch.device("meta"):
                self.image_tower = VisionTransformer(vision, ClassTokenHead(vision))
            load(self.image_tower, fold_constants(_image_tower(state, vision), vision), device, precision)
            config.text_config.projection_dim = len(self.projection)
            with Uninitialised():
                text_tower = CLIPTextModelWithProjection(config.text_config)
            text_tower.load_state_dict({name: state[name].float() for name in text_tower.state_dict()}, assign=True)
        except KeyError as error:
            raise ValueError(f"{weights.path}: no tensor {error}: not a CLIP model in transformers' format") from None
        self.text_tower: Any = text_tower.requires_grad_(False).eval().to(device)
        # For uint8 tensors: bicubic on the CPU in 8 bits, then a centred square.
        self.processor = CLIPImageProcessor(size={"shortest_edge": vision.side}, crop_size=vision.side)
        self.batch = batch_size(vision, device)

    def image_embedding(self, images: Tensor) -> Tensor:
        """8-bit images (B, 3, H, W) in [0, 1] to unit vectors (B, 768)."""
        embeddings = []
        for part in (images * 255).round().to("cpu", torch.uint8).split(self.batch):
            pixels = self.processor(part, return_tensors="pt")["pixel_values"]
            embeddings.append(self.image_tower(pixels.to(self.device)))
        return F.normalize(F.linear(torch.cat(embeddings), self.projection), dim=-1)

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit vectors (B, 768). A text is cut off at 77 tokens, its end token too: torchmetrics does that."""
        # Not verbose: `too_long` tells of what is cut off.
        tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt", verbose=False)["input_ids"]
        tokens = tokens[:, : self.text_tower.config.max_position_embeddings].to(self.device)
        return F.normalize(self.text_tower(tokens).text_embeds, dim=-1)

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more than 77 tokens, the start and end token counted."""
        most = self.text_tower.config.max_position_embeddings
        return [len(ids) > most for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]


def _name(config: Any) -> str:
    """The published name for the published configuration, else what tells CLIP's models apart."""
    parts = {part: getattr(config, part) for part in PUBLISHED}
    if all(getattr(parts[part], name) == value for part, facts in PUBLISHED.items() for name, value in facts.items()):
        return NAME
    vision = parts["vision_config"]
    size = f"patch{vision.patch_size}-width{vision.hidden_size}-layers{vision.num_hidden_layers}"
    return f"clip-{size}-{vision.image_size}px"


def has_published_vocabulary(tokenizer: Any) -> bool:
    """Whether the tokens and their merges are those of OpenAI's CLIP, which open_clip ships too; it gives the last two,
    start and end, other names."""
    from open_clip.tokenizer import SimpleTokenizer

    published = SimpleTokenizer()
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [tuple(each.split(" ")) if isinstance(each, str) else tuple(each) for each in model["merges"]]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tokens[:-2] == [*published.encoder][:-2] and merges == [*published.bpe_ranks]


def _vision_config(official: Any) -> ViTConfig:
    if official.hidden_act != "quick_gelu":
        raise ValueError(f"CLIP's activation {official.hidden_act!r} must be 'quick_gelu', as OpenAI's models have")
    return ViTConfig(
        width=official.hidden_size,
        depth=official.num_hidden_layers,
        heads=official.num_attention_heads,
        eps=official.layer_norm_eps,
        side=official.image_size,
        patch=official.patch_size,
        clip=True,
    )


def _image_tower(official: dict[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    """transformers' names to ours; the last layer becomes the head."""
    root, last = "vision_model.", config.depth - 1
    state = {
        "cls_token": official[root + "embeddings.class_embedding"].view(1, 1, -1),
        "pos_embed": official[root + "embeddings.position_embedding.weight"][None],
        "patch_embed.weight": official[root + "embeddings.patch_embedding.weight"],
    }
    names = {"norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    for part in ("weight", "bias"):
        state[f"norm_pre.{part}"] = official[f"{root}pre_layrnorm.{part}"]
        state[f"head.post.{part}"] = official[f"{root}post_layernorm.{part}"]
        for i in range(config.depth):
            theirs, ours = f"{root}encoder.layers.{i}.", "head." if i == last else f"blocks.{i}."
            query, *others = (official[f"{theirs}self_attn.{x}_proj.{part}"] for x in "qkv")
            proj = official[f"{theirs}self_attn.out_proj.{part}"]
            if i == last:
                state |= {f"head.query.{part}": query, f"head.key_value.{part}": torch.cat(others)}
                state[f"head.proj.{part}"] = proj
            else:
                state |= {f"{ours}attn.qkv.{part}": torch.cat([query, *others]), f"{ours}attn.proj.{part}": proj}
            state |= {f"{ours}{mine}.{part}": official[f"{theirs}{name}.{part}"] for mine, name in names.items()}
    return state
