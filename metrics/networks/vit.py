"""The pre-norm vision transformer that DINO ViT-B/8 and CLIP ViT-L/14 share, cut to what the scores read.

The last block is a head of its own: structure distance reads only its keys, CLIP only its class token; the rest of that
block is not computed. Parameters of the other blocks have the names of DINO's official checkpoint (which are timm's).
Shape suffixes: B images, N tokens (the class token first), D width, H heads, d width of a head.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Attention in bfloat16 on a CPU takes as many heads at a time as keep their scores in the second-level cache.
SCORE_BYTES = 2**21
KEY_MULTIPLE = 32
QUICK_GELU = 1.702


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """side, patch: pixels. clip: CLIP's variations: a layer norm before the first block,
    no bias in the patch embedding, and x sigmoid(1.702 x) in place of the exact GELU."""

    width: int
    depth: int
    heads: int
    eps: float
    side: int = 224
    patch: int = 14
    clip: bool = False

    @property
    def tokens(self) -> int:
        return 1 + (self.side // self.patch) ** 2


class PackedLinear(nn.Module):
    """A linear layer that computes in its weight's dtype.

    `pack` stores the weight of a CPU in oneDNN's blocked layout, as torch.compile's freezing does: in float32 about
    20% faster than F.linear, which packs anew at every call. The plain weight is dropped then.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False)
        self.packed: Tensor | None = None

    def pack(self) -> None:
        if self.weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return
        if self.weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())
        self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.bias.dtype)
        if self.packed is None:
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = PackedLinear(width, 3 * width)
        self.proj = PackedLinear(width, width)


class Mlp(nn.Module):
    """With CLIP's activation, both layers come rescaled by 1.702 (`fold_constants`), which turns it into SiLU."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = PackedLinear(config.width, 4 * config.width)
        self.fc2 = PackedLinear(4 * config.width, config.width)
        self.clip = config.clip

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        return self.fc2(F.silu(hidden, inplace=True) if self.clip else F.gelu(hidden))


class Block(nn.Module):
    """x + attention(norm1 x), then x + mlp(norm2 x). The sums over blocks are float32 in either precision."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.attn = Attention(config.width)
        self.norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = Mlp(config)

    def forward(self, x_BND: Tensor) -> Tensor:
        qkv = self.attn.qkv(self.norm1(x_BND)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        x_BND = x_BND + self.attn.proj(attention(query, key, value))
        return x_BND + self.mlp(self.norm2(x_BND))


class KeyHead(nn.Module):
    """The keys of a block, all heads side by side: (B, N, D) to (B, N, D)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.key = PackedLinear(config.width, config.width)

    def forward(self, x_BND: Tensor) -> Tensor:
        return self.key(self.norm(x_BND))


class ClassTokenHead(nn.Module):
    """A block for its class token alone, and the layer norm after it: (B, N, D) to (B, D) float32."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.query = PackedLinear(config.width, config.width)
        self.key_value = PackedLinear(config.width, 2 * config.width)
        self.proj = PackedLinear(config.width, config.width)
        self.norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = Mlp(config)
        self.post = nn.LayerNorm(config.width, eps=config.eps)

    def forward(self, x_BND: Tensor) -> Tensor:
        normed = self.norm1(x_BND)
        query = self.query(normed[:, :1]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(normed).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x_BD = x_BND[:, 0] + self.proj(attention(query, key, value))[:, 0]
        x_BD = x_BD + self.mlp(self.norm2(x_BD))
        return self.post(x_BD)


class VisionTransformer(nn.Module):
    """Normalised images (B, 3, side, side) to what the head makes of the tokens before the last block.

    Build it on the meta device and fill it with `load`: initialising hundreds of millions of weights takes seconds.
    """

    def __init__(self, config: ViTConfig, head: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = nn.Conv2d(3, config.width, config.patch, config.patch, bias=not config.clip)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.empty(1, config.tokens, config.width))
        self.norm_pre = nn.LayerNorm(config.width, eps=config.eps) if config.clip else nn.Identity()
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth - 1)))
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        x_BND = self.patch_embed(images).flatten(2).transpose(1, 2)
        x_BND = torch.cat([self.cls_token.expand(len(x_BND), -1, -1), x_BND], dim=1) + self.pos_embed
        return self.head(self.blocks(self.norm_pre(x_BND)))


def batch_size(config: ViTConfig, device: str) -> int:
    """Images to take at once. On a CPU the largest activation stays below 32 MB, beyond which glibc's allocator gives
    memory back at every call and page faults take a tenth of the time; speed doesn't grow beyond a few images."""
    if device != "cpu":
        return 64
    return max(1, 2**25 // (config.tokens * config.width * 4 * torch.float32.itemsize))


def load(network: nn.Module, state: Mapping[str, Tensor], device: str, precision: str) -> None:
    """Give a network built on the meta device its weights (RuntimeError names what is missing, unexpected, misshapen).

    precision "bfloat16" stores the linear layers so; patch embedding, layer norms and sums remain float32.
    """
    network.load_state_dict({name: value.float() for name, value in state.items()}, strict=True, assign=True)
    network.requires_grad_(False).eval().to(device)
    for module in network.modules():
        if isinstance(module, PackedLinear):
            module.to(getattr(torch, precision)).pack()


def attention(q_BHNd: Tensor, k_BHNd: Tensor, v_BHNd: Tensor) -> Tensor:
    """Softmax attention (B, N, H * d) for queries that are scaled already (`fold_constants`)."""
    if q_BHNd.dtype == torch.bfloat16 and q_BHNd.device.type == "cpu":
        return _attention_in_cache(q_BHNd, k_BHNd, v_BHNd)
    out_BHNd = F.scaled_dot_product_attention(q_BHNd, k_BHNd, v_BHNd, scale=1.0)
    return out_BHNd.transpose(1, 2).flatten(2)


def _attention_in_cache(q_BHNd: Tensor, k_BHNd: Tensor, v_BHNd: Tensor) -> Tensor:
    """A few heads of one image at a time, the keys padded: 1.5 times as fast as PyTorch's fused bfloat16 kernel on
    AVX-512. oneDNN is slow where a side is no multiple of 32, and the towers have 785 and 257 tokens."""
    batch, heads, queries, width = q_BHNd.shape
    tokens = k_BHNd.shape[2]
    padded = -(-tokens // KEY_MULTIPLE) * KEY_MULTIPLE
    most = max(1, SCORE_BYTES // (2 * queries * padded))
    step = -(-heads // -(-heads // most))  # as even as possible
    k_HMd, v_HMd = q_BHNd.new_zeros(2, heads, padded, width)
    out_BNHd = q_BHNd.new_empty(batch, queries, heads, width)
    for b in range(batch):
        k_HMd[:, :tokens] = k_BHNd[b]
        v_HMd[:, :tokens] = v_BHNd[b]
        for h in range(0, heads, step):
            part = slice(h, h + step)
            scores_HNM = q_BHNd[b, part] @ k_HMd[part].transpose(1, 2)
            scores_HNM[..., tokens:] = -torch.inf
            out_BNHd[b, :, part] = (scores_HNM.softmax(-1) @ v_HMd[part]).transpose(0, 1)
    return out_BNHd.flatten(2)


def fold_constants(state: dict[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    """Move constant factors into the weights: d ** -0.5 into the queries (a power of two, so exact), and CLIP's 1.702,
    since x sigmoid(1.702 x) = silu(1.702 x) / 1.702."""
    scale = (config.width // config.heads) ** -0.5
    folded = dict(state)
    for name, value in state.items():
        if ".attn.qkv." in name:
            folded[name] = torch.cat([value[: config.width] * scale, value[config.width :]])
        elif ".query." in name:
            folded[name] = value * scale
        elif config.clip and ".mlp.fc1." in name:
            folded[name] = value * QUICK_GELU
        elif config.clip and name.endswith(".mlp.fc2.weight"):
            folded[name] = value / QUICK_GELU
    return folded
