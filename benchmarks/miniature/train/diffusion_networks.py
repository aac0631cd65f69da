"""The miniature's latent diffusion: Stable Diffusion's modules in a small configuration, and what starts them well.

Pictures of 64 x 64 pixels become latents of 8 x 8, so that one cell of the world is one place of the latent grid, as it
is one token of the miniature's EditAR. Everything else is as in Stable Diffusion 1: noise schedule, CLIP text encoder,
attention to the text at every level of the U-Net, ControlNets and T2I-Adapters beside it.
"""

import copy
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, T2IAdapter, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.miniature.train.clip_words import clip_tokenizer, unused_ids
from benchmarks.miniature.world.scene import CELL, GRID, SIDE
from editar.training.vq_training import start_linear

ADAPTER_CHANNELS = {"depth": 3, "canny": 1}  # of the condition, as the published T2I-Adapters have them
_START_LOG_VARIANCE = -4.0
_SILU_GAIN = 1.7  # with which convolutions that SiLU follows keep their signal's size


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Sizes of the networks. Widths are channels a level, from fine to coarse."""

    vae_widths: tuple[int, ...] = (16, 32, 64, 96)
    latent_channels: int = 8
    unet_widths: tuple[int, ...] = (96, 96)
    heads: int = 4
    text_width: int = 128
    text_layers: int = 2
    hint_widths: tuple[int, ...] = (16, 32, 32, 64)

    def __post_init__(self):
        for name in ("vae_widths", "hint_widths"):
            factor = 2 ** (len(getattr(self, name)) - 1)
            if factor != CELL:
                raise ValueError(f"{name} has {len(getattr(self, name))} levels, a factor of {factor}, not {CELL}")


def make_vae(config: DiffusionConfig) -> AutoencoderKL:
    """Autoencoder, images (B, 3, 64, 64) in [-1, 1] to latents (B, latent_channels, 8, 8).

    It has no attention: over the whole image it would let an edit in one place change the latents of all others.
    """
    levels = len(config.vae_widths)
    vae = AutoencoderKL(
        block_out_channels=config.vae_widths,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=config.latent_channels,
        norm_num_groups=4,
        sample_size=SIDE,
        scaling_factor=1.0,  # see `standardise`
        mid_block_add_attention=False,
    )
    start_linear(vae)
    # The posterior starts narrow: at a variance of 1 the decoder would see nothing but noise.
    vae.quant_conv.weight.data[config.latent_channels :] = 0.0
    vae.quant_conv.bias.data[config.latent_channels :] = _START_LOG_VARIANCE
    return vae


@torch.no_grad()
def standardise(vae: AutoencoderKL, images: Tensor) -> None:
    """Give every latent channel mean 0 and variance 1 over `images` (B, 3, 64, 64), in place; reconstructions stay.

    The diffusion starts from such noise. Stable Diffusion has one factor for all channels (`scaling_factor`); here mean
    and scale go into the 1 x 1 convolutions on both sides of the latents, and the factor is 1.
    """
    channels = vae.config.latent_channels
    latents = vae.encode(images).latent_dist.mean.float()
    mean, scale = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = vae.quant_conv, vae.post_quant_conv
    into.weight[:channels] /= scale[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / scale
    into.bias[channels:] -= 2 * scale.log()  # log variances
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= scale[None, :, None, None]


class TextToImage(nn.Module):
    """U-Net and text encoder as one module: unlike Stable Diffusion's frozen CLIP, the text encoder learns too."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        levels = len(config.unet_widths)
        self.unet = UNet2DConditionModel(
            sample_size=GRID,
            in_channels=config.latent_channels,
            out_channels=config.latent_channels,
            block_out_channels=config.unet_widths,
            down_block_types=("CrossAttnDownBlock2D",) * levels,
            up_block_types=("CrossAttnUpBlock2D",) * levels,
            layers_per_block=1,
            cross_attention_dim=config.text_width,
            attention_head_dim=config.heads,  # diffusers' name for the number of heads
            norm_num_groups=8,
        )
        _close_branches(self.unet)
        nn.init.zeros_(self.unet.conv_out.weight)
        tokenizer = clip_tokenizer()
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.text_width,
                intermediate_size=4 * config.text_width,
                num_hidden_layers=config.text_layers,
                num_attention_heads=4,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )

    def read(self, words: Tensor) -> Tensor:
        """Token ids (B, L) -> text features (B, L, text_width)."""
        return self.text_encoder(words).last_hidden_state


@torch.no_grad()
def silence_unknown_words(text_encoder: CLIPTextModel) -> None:
    """Make tokens that training never shows read as the padding, so that a prompt of unknown words alone, "worst
    quality" for example, is the empty prompt."""
    table = text_encoder.get_parameter("embeddings.token_embedding.weight")
    table[unused_ids()] = table[clip_tokenizer().pad_token_id].clone()


def make_controlnet(config: DiffusionConfig, unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that starts as a copy of the U-Net's first half and changes nothing yet."""
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=config.hint_widths)
    # Through seven convolutions torch's default leaves a 400th of the map: too little to learn from in so few steps.
    hint = control.controlnet_cond_embedding
    for module in (hint.conv_in, *hint.blocks):
        nn.init.normal_(module.weight, std=_SILU_GAIN * module.weight[0].numel() ** -0.5)
        nn.init.zeros_(module.bias)
    return control


def make_adapter(config: DiffusionConfig, task: str) -> T2IAdapter:
    """A T2I-Adapter for one of ADAPTER_CHANNELS."""
    return T2IAdapter(
        in_channels=ADAPTER_CHANNELS[task], channels=list(config.unet_widths), num_res_blocks=1, downscale_factor=CELL
    )


def make_instruct(base: TextToImage) -> TextToImage:
    """A trainable copy of the text-to-image model whose U-Net reads a source beside the noisy latents, (B, 2C, 8, 8),
    and does not heed it yet: the new channels of its first convolution start at zero."""
    model = copy.deepcopy(base).requires_grad_(True)
    unet, narrow = model.unet, model.unet.conv_in
    channels = narrow.in_channels
    wide = nn.Conv2d(2 * channels, narrow.out_channels, narrow.kernel_size, padding=narrow.padding)
    state = narrow.state_dict()
    wide.load_state_dict({**state, "weight": torch.cat([state["weight"], torch.zeros_like(state["weight"])], 1)})
    unet.conv_in = wide.to(narrow.weight.device)
    unet.register_to_config(in_channels=2 * channels)
    return model


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, of which training uses `add_noise` only."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip


def _close_branches(module: nn.Module) -> None:
    """Zero what residual branches end with, so that all of them start as the identity."""
    for name, part in module.named_modules():
        if name.endswith((".conv2", ".proj_out")):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
