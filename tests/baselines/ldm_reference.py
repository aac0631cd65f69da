"""Stable Diffusion and the unified methods' control branches, read off the published code a second time: slow, in
float64, with torch's functions alone, over the checkpoint's own key names."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], stride, padding=weight.shape[-1] // 2)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def group_norm(state: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], eps)


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    q, k, v = (heads_of(x, heads) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + mask
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def time_embedding(state: State, prefix: str, times: Tensor) -> Tensor:
    width = state[f"{prefix}time_embed.0.weight"].shape[1]
    # The one place where float32 counts: of a thousand radians its last digit is worth 1e-4.
    frequencies = torch.exp(-np.log(10000) * torch.arange(width // 2, dtype=torch.float32) / (width // 2))
    angles = (times[:, None].float() * frequencies).double()
    hidden = torch.cat([angles.cos(), angles.sin()], dim=1)
    return linear(state, f"{prefix}time_embed.2", F.silu(linear(state, f"{prefix}time_embed.0", hidden)))


def denormalised(state: State, name: str, x: Tensor, features: Tensor) -> Tensor:
    gamma, beta = conv(state, f"{name}.conv_gamma", features), conv(state, f"{name}.conv_beta", features)
    return F.group_norm(x, 32) * (1 + gamma) + beta


def residual(state: State, name: str, x: Tensor, embedding: Tensor, features: Tensor | None = None) -> Tensor:
    if features is None:
        h = group_norm(state, f"{name}.in_layers.0", x)
    else:
        h = denormalised(state, f"{name}.norm_in", x, features)
    h = conv(state, f"{name}.in_layers.2", F.silu(h))
    h = h + linear(state, f"{name}.emb_layers.1", F.silu(embedding))[:, :, None, None]
    if features is None:
        h = group_norm(state, f"{name}.out_layers.0", h)
    else:
        h = denormalised(state, f"{name}.norm_out", h, features)
    h = conv(state, f"{name}.out_layers.3", F.silu(h))
    return h + (conv(state, f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in state else x)


def transformer(state: State, name: str, x: Tensor, text: Tensor) -> Tensor:
    block = f"{name}.transformer_blocks.0"
    h = conv(state, f"{name}.proj_in", group_norm(state, f"{name}.norm", x, 1e-6)).flatten(2).transpose(1, 2)
    for number in (1, 2):
        query = layer_norm(state, f"{block}.norm{number}", h)
        source = query if number == 1 else text
        attention = f"{block}.attn{number}"
        q, k, v = (
            linear(state, f"{attention}.to_{letter}", given)
            for letter, given in (("q", query), ("k", source), ("v", source))
        )
        h = h + linear(state, f"{attention}.to_out.0", attend(q, k, v, 8))
    value, gate = linear(state, f"{block}.ff.net.0.proj", layer_norm(state, f"{block}.norm3", h)).chunk(2, -1)
    h = h + linear(state, f"{block}.ff.net.2", value * F.gelu(gate))
    return x + conv(state, f"{name}.proj_out", h.transpose(1, 2).unflatten(2, x.shape[2:]))


def block(state: State, name: str, x: Tensor, embedding: Tensor, text: Tensor, features: Tensor | None) -> Tensor:
    """One input, middle or output block: whatever layers the checkpoint has for it, in order."""
    for number in range(3):
        layer = f"{name}.{number}"
        if f"{layer}.emb_layers.1.weight" in state:
            x = residual(state, layer, x, embedding, features)
        elif f"{layer}.proj_in.weight" in state:
            x = transformer(state, layer, x, text)
        elif f"{layer}.op.weight" in state:
            x = conv(state, f"{layer}.op", x, stride=2)
        elif f"{layer}.conv.weight" in state:
            x = conv(state, f"{layer}.conv", F.interpolate(x, scale_factor=2, mode="nearest"))
        elif f"{layer}.weight" in state:
            x = conv(state, layer, x)
    return x


def encoder_half(
    state: State,
    prefix: str,
    latents: Tensor,
    embedding: Tensor,
    text: Tensor,
    hint: Tensor | None = None,
    injected: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Outputs of the twelve input blocks and of the middle. hint: added after the first. injected: features for blocks
    1, 4, 7 and 10."""
    outputs, h = [], latents
    for number in range(12):
        features = injected[number // 3] if injected and number % 3 == 1 else None
        h = block(state, f"{prefix}input_blocks.{number}", h, embedding, text, features)
        if number == 0 and hint is not None:
            h = h + hint
        outputs.append(h)
    for number in range(3):
        layer = f"{prefix}middle_block.{number}"
        h = transformer(state, layer, h, text) if number == 1 else residual(state, layer, h, embedding)
    return [*outputs, h]


def unet(state: State, latents: Tensor, times: Tensor, text: Tensor, control: Sequence[Tensor]) -> Tensor:
    """The predicted noise under the control's thirteen outputs."""
    prefix = "model.diffusion_model."
    embedding = time_embedding(state, prefix, times)
    *skips, h = encoder_half(state, prefix, latents, embedding, text)
    left = list(control)
    h = h + left.pop()
    for number in range(12):
        h = torch.cat([h, skips.pop() + left.pop()], dim=1)
        h = block(state, f"{prefix}output_blocks.{number}", h, embedding, text, None)
    return conv(state, f"{prefix}out.2", F.silu(group_norm(state, f"{prefix}out.0", h)))


def modulated(state: State, name: str, x: Tensor, style: Tensor) -> Tensor:
    """A convolution with each image's own weights: the layer's, times the style of their input channel."""
    weight = state[f"{name}.weight"][None] * style[:, None, :, None, None]
    count, out, into, size, _ = weight.shape
    grouped = x.reshape(1, count * into, *x.shape[2:])
    result = F.conv2d(grouped, weight.reshape(count * out, into, size, size), padding=size // 2, groups=count)
    return result.reshape(count, out, *x.shape[2:]) + state[f"{name}.bias"][:, None, None]


def unicontrol(
    state: State, latents: Tensor, hint: Tensor, times: Tensor, text: Tensor, expert: int, task_feature: Tensor
) -> list[Tensor]:
    """Thirteen controls. task_feature: (1, C), the first token of the encoded instruction."""
    p = "control_model."
    task = linear(state, f"{p}task_id_hypernet.0", task_feature)
    task = F.silu(linear(state, f"{p}task_id_hypernet.2", F.silu(task))).repeat(len(latents), 1)
    h = hint
    for place, stride in ((0, 1), (2, 1), (4, 2)):
        h = F.silu(conv(state, f"{p}input_hint_block_list_moe.{expert}.{place}", h, stride))
    style = linear(state, f"{p}task_id_layernet_zeroconv_0", task)
    h = modulated(state, f"{p}input_hint_block_zeroconv_0.0", h, style)
    for place, stride in ((0, 1), (2, 2), (4, 1), (6, 2)):
        h = F.silu(conv(state, f"{p}input_hint_block_share.{place}", h, stride))
    style = linear(state, f"{p}task_id_layernet_zeroconv_1", task)
    h = modulated(state, f"{p}input_hint_block_zeroconv_1.0", h, style)
    *outputs, middle = encoder_half(state, p, latents, time_embedding(state, p, times), text, hint=h)
    controls = [
        modulated(state, f"{p}zero_convs.{number}.0", each, linear(state, f"{p}task_id_layernet.{number}", task))
        for number, each in enumerate(outputs)
    ]
    return [*controls, conv(state, f"{p}middle_block_out.0", middle)]


def local_adapter(state: State, latents: Tensor, hint: Tensor, times: Tensor, text: Tensor) -> list[Tensor]:
    """Thirteen controls. hint: (B, 21, S, S)."""
    p = "local_adapter."
    h = hint
    for place, stride in ((0, 1), (2, 2), (4, 1), (6, 2), (8, 1)):
        h = F.silu(conv(state, f"{p}feature_extractor.pre_extractor.{place}", h, stride))
    features = []
    for number in range(4):
        h = F.silu(conv(state, f"{p}feature_extractor.extractors.{number}.0", h, 2))
        features.append(conv(state, f"{p}feature_extractor.zero_convs.{number}", h))
    *outputs, middle = encoder_half(state, p, latents, time_embedding(state, p, times), text, injected=features)
    controls = [conv(state, f"{p}zero_convs.{number}.0", each) for number, each in enumerate(outputs)]
    return [*controls, conv(state, f"{p}middle_block_out.0", middle)]


def global_adapter(state: State, content: Tensor) -> Tensor:
    """(B, C) -> (B, 4, C)."""
    h = content
    for number in (1, 2):
        name = f"global_adapter.ff{number}"
        h = layer_norm(state, f"global_adapter.norm{number}", h)
        value, gate = linear(state, f"{name}.net.0.proj", h).chunk(2, -1)
        h = linear(state, f"{name}.net.2", value * F.gelu(gate))
    return h.reshape(len(h), 4, -1)


def text_encoder(state: State, tokens: Tensor) -> Tensor:
    """Token ids (B, 77) to the last hidden states (B, 77, C)."""
    p = "cond_stage_model.transformer.text_model."
    h = state[f"{p}embeddings.token_embedding.weight"][tokens] + state[f"{p}embeddings.position_embedding.weight"]
    width, length = h.shape[-1], tokens.shape[1]
    causal = torch.full((length, length), -torch.inf, dtype=h.dtype).triu(1)
    layers = {name.removeprefix(p).split(".")[2] for name in state if name.startswith(f"{p}encoder.layers.")}
    for number in range(len(layers)):
        layer = f"{p}encoder.layers.{number}"
        x = layer_norm(state, f"{layer}.layer_norm1", h)
        q, k, v = (linear(state, f"{layer}.self_attn.{letter}_proj", x) for letter in "qkv")
        h = h + linear(state, f"{layer}.self_attn.out_proj", attend(q, k, v, width // 64, causal))
        x = linear(state, f"{layer}.mlp.fc1", layer_norm(state, f"{layer}.layer_norm2", h))
        h = h + linear(state, f"{layer}.mlp.fc2", x * torch.sigmoid(1.702 * x))
    return layer_norm(state, f"{p}final_layer_norm", h)


def vae_norm(state: State, name: str, x: Tensor) -> Tensor:
    return group_norm(state, name, x, 1e-6)


def vae_block(state: State, name: str, x: Tensor) -> Tensor:
    h = conv(state, f"{name}.conv1", F.silu(vae_norm(state, f"{name}.norm1", x)))
    h = conv(state, f"{name}.conv2", F.silu(vae_norm(state, f"{name}.norm2", h)))
    return h + (conv(state, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in state else x)


def vae_middle(state: State, name: str, h: Tensor) -> Tensor:
    """The blocks between the halves of the encoder or the decoder that `name` begins with."""
    h = vae_block(state, f"{name}mid.block_1", h)
    x = vae_norm(state, f"{name}mid.attn_1.norm", h)
    q, k, v = (conv(state, f"{name}mid.attn_1.{letter}", x).flatten(2).transpose(1, 2) for letter in "qkv")
    attended = attend(q, k, v, 1).transpose(1, 2).unflatten(2, h.shape[2:])
    return vae_block(state, f"{name}mid.block_2", h + conv(state, f"{name}mid.attn_1.proj_out", attended))


def vae_decode(state: State, latents: Tensor) -> Tensor:
    """Scaled latents (B, 4, h, w) to pixels around [-1, 1]."""
    p = "first_stage_model."
    d = f"{p}decoder."
    h = conv(state, f"{d}conv_in", conv(state, f"{p}post_quant_conv", latents / 0.18215))
    h = vae_middle(state, d, h)
    for level in (3, 2, 1, 0):
        for number in range(3):
            h = vae_block(state, f"{d}up.{level}.block.{number}", h)
        if level > 0:
            h = conv(state, f"{d}up.{level}.upsample.conv", F.interpolate(h, scale_factor=2, mode="nearest"))
    return conv(state, f"{d}conv_out", F.silu(vae_norm(state, f"{d}norm_out", h)))


def ddim_table(steps: int) -> list[tuple[int, float, float]]:
    """(time step, alpha of it, alpha of the next) from noise to image, as CompVis' sampler tabulates them."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    times = np.arange(0, 1000, 1000 // steps) + 1
    previous = np.concatenate([alphas[:1], alphas[times[:-1]]])
    return [(int(t), float(alphas[t]), float(after)) for t, after in zip(times, previous, strict=True)][::-1]


def ddim_step(latents: Tensor, noise: Tensor, alpha: float, after: float) -> Tensor:
    clean = (latents - (1 - alpha) ** 0.5 * noise) / alpha**0.5
    return after**0.5 * clean + (1 - after) ** 0.5 * noise


def images(
    state: State,
    tokens: tuple[Tensor, Tensor],
    noise: Tensor,
    control: Callable[[Tensor, Tensor, Tensor], list[Tensor]],
    guidance: float,
    words: Tensor | None = None,
) -> np.ndarray:
    """A whole run of 50 steps: levels (B, S, S, 3) as float64, before they are cut to whole ones.

    tokens: of the prompts and of the negative prompts, (B, 77) each. control: from latents, times and texts. words:
    (1, N, C), what follows both texts.
    """
    texts = [text_encoder(state, each) for each in tokens]
    if words is not None:
        texts = [torch.cat([text, words.expand(len(text), -1, -1)], dim=1) for text in texts]
    latents = noise.double()
    for time, alpha, after in ddim_table(50):
        times = torch.full((len(latents),), time)
        prompted, negative = (unet(state, latents, times, text, control(latents, times, text)) for text in texts)
        latents = ddim_step(latents, negative + guidance * (prompted - negative), alpha, after)
    levels = vae_decode(state, latents) * 127.5 + 127.5
    return levels.clamp(0, 255).permute(0, 2, 3, 1).numpy()
