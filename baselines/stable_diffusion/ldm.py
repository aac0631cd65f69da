"""Stable Diffusion out of an LDM checkpoint: its widths, and modules of diffusers and transformers filled with its
tensors. Every key of a part has to be accounted for."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from baselines.stable_diffusion.networks import LDM_SCHEDULE, StableDiffusion
from editar.io.tensors import CheckpointError, Uninitialised

UNET = "model.diffusion_model."
VAE = "first_stage_model."
EMA = "model_ema."  # of the UNet alone
TEXT = "cond_stage_model.transformer."

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What differs between a narrow checkpoint and the official ones. What leaves no trace in the shapes is Stable
    Diffusion 1's: 8 heads and 32 groups in the UNet, heads of 64 channels in the text encoder.

    unet, vae: channels of the four levels, from the image inwards. unet_inputs: channels that the UNet reads, 4 of
    noisy latents and 4 more of an image's where it edits.
    """

    unet: tuple[int, ...]
    unet_inputs: int
    vae: tuple[int, ...]
    text_width: int
    text_layers: int
    text_mlp: int
    text_positions: int
    vocabulary: int

    @property
    def time_width(self) -> int:
        """Channels of the embedding of a time step."""
        return 4 * self.unet[0]

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of what the twelve input blocks of the UNet give, in order."""
        first, second, third, fourth = self.unet
        return (first,) * 4 + (second,) * 3 + (third,) * 3 + (fourth,) * 2

    @classmethod
    def of(cls, state: Mapping[str, Tensor], path: Path) -> "Sizes":
        """Read off a few tensors; that all the others fit is checked when they are loaded."""
        layers = {name.split(".")[5] for name in state if name.startswith(f"{TEXT}text_model.encoder.layers.")}
        try:
            vocabulary, width = state[f"{TEXT}text_model.embeddings.token_embedding.weight"].shape
            return cls(
                unet=tuple(len(state[f"{UNET}input_blocks.{block}.0.out_layers.3.weight"]) for block in (1, 4, 7, 10)),
                unet_inputs=state[f"{UNET}input_blocks.0.0.weight"].shape[1],
                vae=tuple(len(state[f"{VAE}decoder.up.{level}.block.0.conv2.weight"]) for level in range(4)),
                text_width=width,
                text_layers=len(layers),
                text_mlp=len(state[f"{TEXT}text_model.encoder.layers.0.mlp.fc1.weight"]),
                text_positions=len(state[f"{TEXT}text_model.embeddings.position_embedding.weight"]),
                vocabulary=vocabulary,
            )
        except KeyError as error:
            raise CheckpointError(
                f"{path}: not a Stable Diffusion 1 checkpoint in LDM's layout, {error.args[0]} is missing"
            ) from error


def empty(build: Callable[[], ModuleT]) -> ModuleT:
    """The module on the meta device, which takes neither memory nor time; its buffers must all be in the checkpoint."""
    with torch.device("meta"), Uninitialised():
        return build()


def fill(
    module: ModuleT,
    state: Mapping[str, Tensor],
    path: Path,
    prefix: str,
    name: Callable[[str], str] = str,
    unused: Collection[str] = (),
) -> ModuleT:
    """The module with the tensors under `prefix`, in evaluation mode; they are mapped from the file, not copied.

    name: from the module's parameter names to those in the file, without the prefix. unused: names in the file that
    the module has no use for. Raises CheckpointError naming, as in the file, every missing, unexpected and misshapen
    key.
    """
    wanted = {prefix + name(own): (own, tensor.shape) for own, tensor in module.state_dict().items()}
    faults = [f"missing {key}" for key in wanted if key not in state]
    known = {*wanted, *(prefix + each for each in unused)}
    faults += [f"unexpected {key}" for key in state if key.startswith(prefix) and key not in known]
    found = {key: _as_linear(state[key], len(shape)) for key, (_, shape) in wanted.items() if key in state}
    faults += [
        f"{key} has shape {tuple(state[key].shape)} instead of {tuple(wanted[key][1])}"
        for key, tensor in found.items()
        if tensor.shape != wanted[key][1]
    ]
    if faults:
        raise CheckpointError(f"{path} does not fit {type(module).__name__}: " + "; ".join(faults))
    module.load_state_dict({wanted[key][0]: tensor.float() for key, tensor in found.items()}, assign=True)
    return module.eval().requires_grad_(False)


def _as_linear(tensor: Tensor, dimensions: int) -> Tensor:
    """LDM's VAE attends with convolutions of one pixel, diffusers' with linear maps."""
    return tensor[..., 0, 0] if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) and dimensions == 2 else tensor


def read_stable_diffusion(
    state: Mapping[str, Tensor],
    sizes: Sizes,
    path: Path,
    tokenizer: Path,
    device: str,
    dtype: str = "float32",
    *,
    ema: bool = False,
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
    networks = (
        _read_unet(state, sizes, path, ema),
        fill(empty(lambda: build_vae(sizes)), state, path, VAE, vae_name),
        fill(text, state, path, TEXT, text_name, unused=positions),
    )
    for network in networks:
        nn.Module.to(network, getattr(torch, dtype))  # diffusers' own `to` warns of casts, though nothing is to be kept
    unet, vae, text_encoder = networks
    return StableDiffusion(
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=read_tokenizer(tokenizer, sizes.text_positions),
        scheduler_config=dict(LDM_SCHEDULE),
        device=device,
        dtype=dtype,
    )


def _read_unet(state: Mapping[str, Tensor], sizes: Sizes, path: Path, ema: bool) -> UNet2DConditionModel:
    unet = empty(lambda: build_unet(sizes))
    if ema:
        return fill(unet, state, path, EMA, ema_name, unused=("decay", "num_updates"))
    return fill(unet, state, path, UNET, unet_name)


def read_tokenizer(folder: Path, length: int) -> CLIPTokenizer:
    """From vocab.json and merges.txt alone, whose digests are recorded, whatever else the folder holds.

    length: tokens that a text is padded or cut to.
    """
    lines = (folder / "merges.txt").read_text("utf-8").split("\n")
    merges: list[Any] = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


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


# From the names of diffusers' and transformers' parameters to those in the file. diffusers has converters the other way
# round (`diffusers.loaders.single_file_utils`), which pass over what a file lacks or has too much; asking the file for
# every parameter by its own name finds both. The tests compare the two.
LAYERS = 2  # residual blocks in each level of the UNet; a level takes one more place for its down- or upsampler

_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE = (
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"attn_1\.group_norm", "attn_1.norm"),
    (r"attn_1\.to_([qkv])", r"attn_1.\1"),
    (r"attn_1\.to_out\.0", "attn_1.proj_out"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets", r"up.\1.block"),
    (r"up_blocks\.(\d)\.upsamplers\.0", r"up.\1.upsample"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)


def unet_name(name: str) -> str:
    """`down_blocks.0.resnets.1.conv1.weight` -> `input_blocks.2.0.in_layers.2.weight`, for UNet and ControlNet."""
    for end, ldm in _ENDS.items():
        if name.startswith(f"{end}."):
            return ldm + name.removeprefix(end)
    side, *parts = name.split(".")
    level = 0 if side == "mid_block" else int(parts.pop(0))
    kind, number, *rest = parts
    if kind == "downsamplers":
        return f"input_blocks.{(LAYERS + 1) * (level + 1)}.0.op.{rest[-1]}"
    if kind == "upsamplers":  # after the attention, which the first, deepest level lacks
        return f"output_blocks.{(LAYERS + 1) * level + LAYERS}.{1 if level == 0 else 2}.conv.{rest[-1]}"
    if side == "mid_block":
        place = f"middle_block.{2 * int(number) if kind == 'resnets' else 1}"
    else:
        block = (LAYERS + 1) * level + int(number)
        blocks = f"input_blocks.{block + 1}" if side == "down_blocks" else f"output_blocks.{block}"
        place = f"{blocks}.{0 if kind == 'resnets' else 1}"
    if kind == "resnets":
        rest[0] = _RESNET[rest[0]]
    return ".".join([place, *rest])


def ema_name(name: str) -> str:
    """`conv_in.weight` -> `diffusion_modelinput_blocks00weight`: LDM's moving average is kept in buffers, whose names
    have no dots."""
    return f"diffusion_model.{unet_name(name)}".replace(".", "")


def vae_name(name: str) -> str:
    """`decoder.up_blocks.0.resnets.1.conv1.weight` -> `decoder.up.3.block.1.conv1.weight`."""
    # LDM numbers the decoder's levels from the image inwards, diffusers in the order of computation.
    name = re.sub(r"up_blocks\.(\d)", lambda match: f"up_blocks.{3 - int(match[1])}", name)
    for pattern, ldm in _VAE:
        name = re.sub(pattern, ldm, name)
    return name


def text_name(name: str) -> str:
    """`encoder.layers.0...` -> `text_model.encoder.layers.0...`, as transformers called them before version 5."""
    return f"text_model.{name.removeprefix('text_model.')}"
