"""Stable Diffusion 1.5 of diffusers' and transformers' modules, filled from an LDM checkpoint."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from baselines.unified.checkpoint import EMA, TEXT, UNET, VAE, Sizes, empty, fill
from baselines.unified.names import ema_name, text_name, unet_name, vae_name

LATENT_SCALE = 0.18215
PIXELS = 8  # along one side, for each of the latents'


@dataclass(frozen=True, kw_only=True)
class StableDiffusion:
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    device: str

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(B, 77, C): the last hidden states, of texts cut or padded to 77 tokens."""
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.text_encoder.config.max_position_embeddings,
            return_tensors="pt",
        )
        # Without the attention mask: Stable Diffusion attends to the padding too.
        return self.text_encoder(input_ids=tokens["input_ids"].to(self.device)).last_hidden_state

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, 4, S/8, S/8) to RGB images of S x S; both authors' scripts cut fractions off, not round."""
        pixels = self.vae.decode(latents / LATENT_SCALE).sample
        levels = (pixels * 127.5 + 127.5).clamp(0, 255).to(torch.uint8)
        return [Image.fromarray(each.permute(1, 2, 0).cpu().numpy()) for each in levels]


def read_stable_diffusion(
    state: Mapping[str, Tensor], sizes: Sizes, path: Path, tokenizer: Path, device: str, *, ema: bool = False
) -> StableDiffusion:
    """path: of the checkpoint, for messages. tokenizer: the folder with its files. ema: whether the UNet is the moving
    average of the training's, which a checkpoint may have beside the last one."""
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.text_width,
            intermediate_size=sizes.text_mlp,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=sizes.text_width // 64,
            max_position_embeddings=sizes.text_positions,
            hidden_act="quick_gelu",
        )
    )
    positions = ("text_model.embeddings.position_ids",)
    return StableDiffusion(
        unet=_read_unet(state, sizes, path, ema).to(device),
        vae=fill(empty(lambda: build_vae(sizes)), state, path, VAE, vae_name).to(device),
        text_encoder=fill(text, state, path, TEXT, text_name, unused=positions).to(device),  # type: ignore[arg-type]
        tokenizer=read_tokenizer(tokenizer),
        device=device,
    )


def _read_unet(state: Mapping[str, Tensor], sizes: Sizes, path: Path, ema: bool) -> UNet2DConditionModel:
    unet = empty(lambda: build_unet(sizes))
    if ema:
        return fill(unet, state, path, EMA, ema_name, unused=("decay", "num_updates"))
    return fill(unet, state, path, UNET, unet_name)


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """From vocab.json and merges.txt alone, whose digests are recorded, whatever else the folder holds."""
    lines = (folder / "merges.txt").read_text("utf-8").split("\n")
    merges: list[Any] = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return CLIPTokenizer(vocab=json.loads((folder / "vocab.json").read_text("utf-8")), merges=merges)


def build_unet(sizes: Sizes) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        in_channels=sizes.unet_inputs,
        block_out_channels=sizes.unet,
        layers_per_block=2,
        cross_attention_dim=sizes.text_width,
        attention_head_dim=8,  # diffusers' name for the number of heads
    )


def build_vae(sizes: Sizes) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=sizes.vae,
        layers_per_block=2,
        latent_channels=4,
    )


def build_trunk(sizes: Sizes) -> ControlNetModel:
    """The copy of the UNet's encoder and middle that a control branch is built on. What follows and precedes it in a
    ControlNet, zero convolutions and the hint's embedding, are identities: the unified methods have their own."""
    trunk = ControlNetModel(
        block_out_channels=sizes.unet,
        layers_per_block=2,
        cross_attention_dim=sizes.text_width,
        attention_head_dim=8,
    )
    trunk.controlnet_cond_embedding = nn.Identity()
    trunk.controlnet_down_blocks = nn.ModuleList(nn.Identity() for _ in sizes.features)
    trunk.controlnet_mid_block = nn.Identity()
    return trunk
