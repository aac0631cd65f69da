"""A small Stable Diffusion in the real folder format, for images of 64 x 64 pixels, with reproducible weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.method import EditRequest, MethodContext

SIDE = 64
KNOWN_WORDS = ("a", "photo", "of", "cat", "dog", "red", "on", "the", "mat")  # one token each; others are spelled


def write_stable_diffusion(folder: Path, seed: int = 0) -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    vocabulary = write_tokenizer(folder / "tokenizer")
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8,) * 4,
    }
    pipeline: Any = StableDiffusionPipeline(
        vae=AutoencoderKL(**blocks, layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=SIDE),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=20,
            )
        ),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel(
            sample_size=SIDE // 8, block_out_channels=(16, 32, 32, 32), layers_per_block=1, cross_attention_dim=16,
            attention_head_dim=2, norm_num_groups=8,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)


def write_tokenizer(folder: Path) -> int:
    """CLIP's kind of tokenizer: letters and some words. Returns how many tokens it knows."""
    letters = "abcdefghijklmnopqrstuvwxyz,.'!-0123456789"
    pieces = [piece + end for end in ("", "</w>") for piece in letters]
    merges = []
    for word in KNOWN_WORDS:
        symbols = [*word[:-1], word[-1] + "</w>"]
        while len(symbols) > 1:
            merges.append(f"{symbols[0]} {symbols[1]}")
            symbols[:2] = [symbols[0] + symbols[1]]
            pieces.append(symbols[0])
    special = ["<|startoftext|>", "<|endoftext|>"]
    pieces = list(dict.fromkeys(pieces)) + special
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges), ""]))
    names = {"bos_token": special[0], "eos_token": special[1], "unk_token": special[1], "pad_token": special[1]}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**names, "tokenizer_class": "CLIPTokenizer", "model_max_length": 20})
    )
    return len(pieces)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_stable_diffusion(folder / "diffusion")
    return folder


@pytest.fixture(scope="session")
def context(weights: Path) -> MethodContext:
    return MethodContext(suite="miniature", weights=weights, device="cpu", image_side=SIDE)


@pytest.fixture(scope="session")
def make_request() -> Callable[..., EditRequest]:
    def make(number: int = 0, **changes: Any) -> EditRequest:
        """Smooth noise of its own for each number, with two prompts of unlike length."""
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        facts: dict[str, Any] = {
            "sample_id": str(number),
            "image": Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC),
            "instruction": "make the cat a red dog",
            "source_prompt": "a photo of a cat on the mat",
            "target_prompt": "a photo of a red dog on the mat",
            "blend_words": None,
            "seed": number,
        }
        return EditRequest(**{**facts, **changes})

    return make
