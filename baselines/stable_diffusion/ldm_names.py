"""From the names of diffusers' and transformers' parameters to those in an LDM checkpoint of Stable Diffusion 1.

diffusers has converters the other way round (`diffusers.loaders.single_file_utils`), which pass over what a file lacks
or has too much; asking the file for every parameter by its own name finds both. The tests compare the two.
"""

import re

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
