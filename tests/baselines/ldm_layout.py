"""Key names and shapes of LDM checkpoints, written down from the published configurations (cldm_v15_unicontrol.yaml,
uni_v15.yaml) and what their constructors make of them, for any widths; and random tensors for them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from baselines.method import MethodContext
from benchmarks.tools.random_weights import write_clip_tokenizer

Shapes = dict[str, tuple[int, ...]]

SCHEDULE = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "logvar",
)  # fmt: skip
POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"


@dataclass(frozen=True, kw_only=True)
class Widths:
    unet: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    vae: tuple[int, int, int, int] = (128, 256, 512, 512)
    text: int = 768
    text_layers: int = 12
    vocabulary: int = 49408


OFFICIAL = Widths()
NARROW = Widths(unet=(32, 64, 64, 64), vae=(32, 32, 64, 64), text=64, text_layers=2)


class Keys(dict[str, tuple[int, ...]]):
    """Shapes by name, entered layer by layer."""

    def conv(self, name: str, out: int, into: int, kernel: int = 3) -> None:
        self[f"{name}.weight"], self[f"{name}.bias"] = (out, into, kernel, kernel), (out,)

    def linear(self, name: str, out: int, into: int, bias: bool = True) -> None:
        self[f"{name}.weight"] = (out, into)
        if bias:
            self[f"{name}.bias"] = (out,)

    def norm(self, name: str, width: int) -> None:
        self[f"{name}.weight"], self[f"{name}.bias"] = (width,), (width,)


def residual(keys: Keys, name: str, into: int, out: int, time: int, injected: int | None = None) -> None:
    for layers, norm, channels in (("in_layers", "norm_in", into), ("out_layers", "norm_out", out)):
        if injected is None:
            keys.norm(f"{name}.{layers}.0", channels)
        else:
            keys.conv(f"{name}.{norm}.conv_gamma", channels, injected)
            keys.conv(f"{name}.{norm}.conv_beta", channels, injected)
    keys.conv(f"{name}.in_layers.2", out, into)
    keys.linear(f"{name}.emb_layers.1", out, time)
    keys.conv(f"{name}.out_layers.3", out, out)
    if into != out:
        keys.conv(f"{name}.skip_connection", out, into, 1)


def transformer(keys: Keys, name: str, width: int, text: int) -> None:
    keys.norm(f"{name}.norm", width)
    keys.conv(f"{name}.proj_in", width, width, 1)
    keys.conv(f"{name}.proj_out", width, width, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, source in (("attn1", width), ("attn2", text)):
        for letter, into in (("q", width), ("k", source), ("v", source)):
            keys.linear(f"{block}.{attention}.to_{letter}", width, into, bias=False)
        keys.linear(f"{block}.{attention}.to_out.0", width, width)
    keys.linear(f"{block}.ff.net.0.proj", 8 * width, width)
    keys.linear(f"{block}.ff.net.2", width, 4 * width)
    for number in (1, 2, 3):
        keys.norm(f"{block}.norm{number}", width)


def encoder_half(keys: Keys, prefix: str, widths: Widths, injected: tuple[int, ...] | None = None) -> list[int]:
    """Time embedding, input blocks and middle; returns the channels of the input blocks' outputs."""
    channels = widths.unet[0]
    time = 4 * channels
    keys.linear(f"{prefix}time_embed.0", time, channels)
    keys.linear(f"{prefix}time_embed.2", time, time)
    keys.conv(f"{prefix}input_blocks.0.0", channels, 4)
    features = [channels]
    for level, width in enumerate(widths.unet):
        for number in range(2):
            block = f"{prefix}input_blocks.{len(features)}"
            local = injected[level] if injected is not None and number == 0 else None
            residual(keys, f"{block}.0", channels, width, time, local)
            if level < 3:
                transformer(keys, f"{block}.1", width, widths.text)
            channels = width
            features.append(width)
        if level < 3:
            keys.conv(f"{prefix}input_blocks.{len(features)}.0.op", width, width)
            features.append(width)
    residual(keys, f"{prefix}middle_block.0", channels, channels, time)
    transformer(keys, f"{prefix}middle_block.1", channels, widths.text)
    residual(keys, f"{prefix}middle_block.2", channels, channels, time)
    return features


def unet(keys: Keys, prefix: str, widths: Widths) -> None:
    features = encoder_half(keys, prefix, widths)
    channels, block = widths.unet[-1], 0
    for level in (3, 2, 1, 0):
        width = widths.unet[level]
        for number in range(3):
            name = f"{prefix}output_blocks.{block}"
            residual(keys, f"{name}.0", channels + features.pop(), width, 4 * widths.unet[0])
            if level < 3:
                transformer(keys, f"{name}.1", width, widths.text)
            if level > 0 and number == 2:
                keys.conv(f"{name}.{1 if level == 3 else 2}.conv", width, width)
            channels = width
            block += 1
    keys.norm(f"{prefix}out.0", channels)
    keys.conv(f"{prefix}out.2", 4, channels)


def vae(keys: Keys, prefix: str, widths: Widths) -> None:
    def block(name: str, into: int, out: int) -> None:
        keys.norm(f"{name}.norm1", into)
        keys.conv(f"{name}.conv1", out, into)
        keys.norm(f"{name}.norm2", out)
        keys.conv(f"{name}.conv2", out, out)
        if into != out:
            keys.conv(f"{name}.nin_shortcut", out, into, 1)

    def middle(name: str) -> None:
        block(f"{name}.block_1", widths.vae[-1], widths.vae[-1])
        block(f"{name}.block_2", widths.vae[-1], widths.vae[-1])
        keys.norm(f"{name}.attn_1.norm", widths.vae[-1])
        for layer in ("q", "k", "v", "proj_out"):
            keys.conv(f"{name}.attn_1.{layer}", widths.vae[-1], widths.vae[-1], 1)

    channels = widths.vae[0]
    keys.conv(f"{prefix}encoder.conv_in", channels, 3)
    for level, width in enumerate(widths.vae):
        for number in range(2):
            block(f"{prefix}encoder.down.{level}.block.{number}", channels, width)
            channels = width
        if level < 3:
            keys.conv(f"{prefix}encoder.down.{level}.downsample.conv", width, width)
    middle(f"{prefix}encoder.mid")
    keys.norm(f"{prefix}encoder.norm_out", channels)
    keys.conv(f"{prefix}encoder.conv_out", 8, channels)
    keys.conv(f"{prefix}quant_conv", 8, 8, 1)
    keys.conv(f"{prefix}post_quant_conv", 4, 4, 1)
    keys.conv(f"{prefix}decoder.conv_in", channels, 4)
    middle(f"{prefix}decoder.mid")
    for level in (3, 2, 1, 0):
        for number in range(3):
            block(f"{prefix}decoder.up.{level}.block.{number}", channels, widths.vae[level])
            channels = widths.vae[level]
        if level > 0:
            keys.conv(f"{prefix}decoder.up.{level}.upsample.conv", channels, channels)
    keys.norm(f"{prefix}decoder.norm_out", channels)
    keys.conv(f"{prefix}decoder.conv_out", 3, channels)


def text_encoder(keys: Keys, prefix: str, widths: Widths) -> None:
    keys[f"{prefix}embeddings.position_ids"] = (1, 77)
    keys[f"{prefix}embeddings.token_embedding.weight"] = (widths.vocabulary, widths.text)
    keys[f"{prefix}embeddings.position_embedding.weight"] = (77, widths.text)
    for number in range(widths.text_layers):
        layer = f"{prefix}encoder.layers.{number}"
        for projection in ("k_proj", "v_proj", "q_proj", "out_proj"):
            keys.linear(f"{layer}.self_attn.{projection}", widths.text, widths.text)
        keys.linear(f"{layer}.mlp.fc1", 4 * widths.text, widths.text)
        keys.linear(f"{layer}.mlp.fc2", widths.text, 4 * widths.text)
        keys.norm(f"{layer}.layer_norm1", widths.text)
        keys.norm(f"{layer}.layer_norm2", widths.text)
    keys.norm(f"{prefix}final_layer_norm", widths.text)


def stable_diffusion(widths: Widths) -> Keys:
    keys = Keys({name: (1000,) for name in SCHEDULE})
    unet(keys, "model.diffusion_model.", widths)
    vae(keys, "first_stage_model.", widths)
    text_encoder(keys, "cond_stage_model.transformer.text_model.", widths)
    return keys


def instructed(widths: Widths, *, average: bool) -> Shapes:
    """An InstructPix2Pix checkpoint. average: with the moving average of the UNet, as in a file that training wrote."""
    keys = stable_diffusion(widths)
    keys["model.diffusion_model.input_blocks.0.0.weight"] = (widths.unet[0], 8, 3, 3)
    if average:
        unet_keys = [name for name in keys if name.startswith("model.diffusion_model.")]
        keys |= {f"model_ema.{name.removeprefix('model.').replace('.', '')}": keys[name] for name in unet_keys}
        keys |= {"model_ema.decay": (), "model_ema.num_updates": ()}
    return keys


def zero_convs(keys: Keys, prefix: str, features: list[int]) -> None:
    for number, width in enumerate(features):
        keys.conv(f"{prefix}zero_convs.{number}.0", width, width, 1)
    keys.conv(f"{prefix}middle_block_out.0", features[-1], features[-1], 1)


def unicontrol(widths: Widths) -> Shapes:
    """A UniControl checkpoint."""
    keys, prefix = stable_diffusion(widths), "control_model."
    features = encoder_half(keys, prefix, widths)
    zero_convs(keys, prefix, features)
    first = widths.unet[0]
    time = 4 * first
    for expert in range(13):
        for place, into, out in ((0, 3, 16), (2, 16, 16), (4, 16, 32)):
            keys.conv(f"{prefix}input_hint_block_list_moe.{expert}.{place}", out, into)
    for place, into, out in ((0, 32, 32), (2, 32, 96), (4, 96, 96), (6, 96, 256)):
        keys.conv(f"{prefix}input_hint_block_share.{place}", out, into)
    for number, into, out in ((0, 32, 32), (1, 256, first)):
        keys.linear(f"{prefix}task_id_layernet_zeroconv_{number}", into, time)
        for twin in (0, 1):
            keys.conv(f"{prefix}input_hint_block_zeroconv_{number}.{twin}", out, into)
    keys.linear(f"{prefix}task_id_hypernet.0", time, widths.text)
    keys.linear(f"{prefix}task_id_hypernet.2", time, time)
    for number, width in enumerate(features):
        keys.linear(f"{prefix}task_id_layernet.{number}", width, time)
    return keys


def uni_controlnet(widths: Widths) -> Shapes:
    """A Uni-ControlNet checkpoint with both adapters."""
    injected = (192, 256, 384, 512)
    keys, prefix = stable_diffusion(widths), "local_adapter."
    zero_convs(keys, prefix, encoder_half(keys, prefix, widths, injected))
    extractor = f"{prefix}feature_extractor."
    for place, into, out in ((0, 21, 32), (2, 32, 64), (4, 64, 64), (6, 64, 128), (8, 128, 128)):
        keys.conv(f"{extractor}pre_extractor.{place}", out, into)
    for number, (into, out) in enumerate(zip((128, *injected[:3]), injected, strict=True)):
        keys.conv(f"{extractor}extractors.{number}.0", out, into)
        keys.conv(f"{extractor}zero_convs.{number}", out, out)
    width = widths.text
    for number, into, out in ((1, width, 2 * width), (2, 2 * width, 4 * width)):
        keys.norm(f"global_adapter.norm{number}", into)
        keys.linear(f"global_adapter.ff{number}.net.0.proj", 8 * into, into)
        keys.linear(f"global_adapter.ff{number}.net.2", out, 4 * into)
    return keys


def random_state(shapes: Shapes) -> dict[str, Tensor]:
    """Values that depend on a key's name alone, of a size that neither vanishes nor grows through the layers."""
    state = {}
    for name, shape in shapes.items():
        if name == POSITIONS:
            state[name] = torch.arange(77)[None]
            continue
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        if len(shape) > 1:
            # SiLU halves small values, and nothing in the hint's layers norms them: without the factor no hint counts.
            gain = 2.0 if "input_hint" in name or "feature_extractor" in name else 1.0
            state[name] = gain * values / values[0].numel() ** 0.5
        else:
            state[name] = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
    return state


class Touch:
    """Pickled, it makes whoever unpickles it create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.path,)


def write_weights(folder: Path, name: str, content: object) -> MethodContext:
    """A folder as the user has it: the checkpoint, and CLIP's tokenizer."""
    torch.save(content, folder / name)
    (folder / "clip-vit-large-patch14").mkdir(exist_ok=True)
    write_clip_tokenizer(folder / "clip-vit-large-patch14")
    return MethodContext(suite="paper", weights=folder, device="cpu", image_side=64)
