"""A tiny Stable Diffusion 1.x, ControlNets and T2I-Adapters with fixed random weights, in the folders that the hub has.

Width aside, the topology is the real one: four levels, 8 pixels a latent. 64-pixel images take milliseconds a step.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from PIL import Image
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from baselines.method import MethodContext, TranslateRequest

SIDE = 64
LEVELS = 4
WIDTHS = (8, 16, 16, 16)
BASE = "stable-diffusion-v1-5"
# The file of the published checkpoint, as it is: what it leaves out has a default, which differs between schedulers.
SCHEDULER: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
SPECIAL = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}


def filled(module: Any, seed: int) -> Any:
    """`module` with random weights in every tensor, so that what starts as zero matters too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            scale = 0.1 if parameter.ndim < 2 else (2 / parameter[0].numel()) ** 0.5
            centre = 1.0 if parameter.ndim < 2 and name.endswith("weight") else 0.0  # normalisations let through
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + centre)
    return module.eval()


def write_tokenizer(folder: Path) -> Path:
    """vocab.json of single letters, merges.txt without merges: every caption is spelt out."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), SPECIAL["bos_token"], SPECIAL["eos_token"]]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    names = {**SPECIAL, "pad_token": SPECIAL["eos_token"]}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    config = {**names, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def tiny_unet(inputs: int = 4) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        in_channels=inputs, sample_size=SIDE // 8, block_out_channels=WIDTHS, layers_per_block=1,
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip


def write_base(folder: Path) -> Path:
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * LEVELS, up_block_types=("UpDecoderBlock2D",) * LEVELS,
        block_out_channels=(8,) * LEVELS, layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=SIDE,
    )  # fmt: skip
    tokenizer = write_tokenizer(folder / "tokenizer")
    end = json.loads((tokenizer / "vocab.json").read_text())[SPECIAL["eos_token"]]
    config = CLIPTextConfig(
        vocab_size=end + 1, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=end - 1, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    pipeline: Any = StableDiffusionPipeline(
        vae=filled(vae, 1), text_encoder=filled(CLIPTextModel(config), 2),
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer), unet=filled(tiny_unet(), 3),
        scheduler=PNDMScheduler.from_config(SCHEDULER), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))  # without the defaults
    return folder


def write_controlnet(folder: Path, seed: int, *, zeroed: bool = False) -> Path:
    network = filled(ControlNetModel.from_unet(tiny_unet(), conditioning_embedding_out_channels=(4, 8, 8, 8)), seed)
    if zeroed:  # as a ControlNet is before training
        for block in (*network.controlnet_down_blocks, network.controlnet_mid_block):
            nn.init.zeros_(block.weight)
            nn.init.zeros_(block.bias)
    network.save_pretrained(folder)
    return folder


def write_adapter(folder: Path, seed: int, channels: int) -> Path:
    """In PyTorch's format, the one that the hub has."""
    network = T2IAdapter(in_channels=channels, channels=list(WIDTHS), num_res_blocks=1, downscale_factor=8)
    filled(network, seed).save_pretrained(folder, safe_serialization=False)
    return folder


def context(weights: Path | None, task: str, suite: str = "paper") -> MethodContext:
    return MethodContext(suite=suite, weights=weights, device="cpu", image_side=SIDE, task=task, images_at_once=2)


def requests(task: str, count: int = 3) -> list[TranslateRequest]:
    """Conditions, captions and seeds all differ; canny's conditions are white edges on black."""
    images = []
    for number in range(count):
        image = Image.linear_gradient("L").resize((SIDE, SIDE)).rotate(90 * number)
        if task == "canny":
            image = image.point(lambda value: 255 * (value % 32 < 8))
        elif task == "segmentation":
            image = Image.merge("RGB", (image, image.rotate(90), image.rotate(180)))
        images.append(image.convert("RGB"))
    return [
        TranslateRequest(
            sample_id=f"{number:05d}", condition=image, caption=f"a red disc {'and a star ' * number}", task=task,
            seed=2**62 + number,
        )
        for number, image in enumerate(images)
    ]  # fmt: skip
