"""The VQ tokenizer (VQ-16 of LlamaGen): images to a grid of codebook indices and back.

Images are float tensors (B, 3, H, W), RGB in [-1, 1]; H and W are multiples of `config.downsampling`.
State-dict names are those of the released `vq_ds16_t2i.pt`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editar.config import VQConfig

NORM_EPS = 1e-6
CODEBOOK_USED_SLOTS = 65536  # a usage statistic of the authors' training; kept because the released file holds it
DISTANCE_ROWS = 4096  # latents compared with the codebook at a time: bounds the distance matrix's memory


class GroupNorm(nn.GroupNorm):
    """torch's, whose backward on a CPU is twenty times slower for channels-last input: training there goes round it."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.requires_grad and x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)
        return super().forward(x)


class ResBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(groups, out_channels, eps=NORM_EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


class AttentionBlock(nn.Module):
    """Self-attention over all positions, one head."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=NORM_EPS)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2).unsqueeze(1) for f in (self.q, self.k, self.v))  # (B, 1, HW, C)
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(attended.squeeze(1).transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # right and bottom only


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention at the deepest level, then a resampling."""

    def __init__(self, before: int, width: int, blocks: int, groups: int, attention: bool, resampling: str) -> None:
        """resampling: "downsample", "upsample" or "" for none."""
        super().__init__()
        self.res = nn.ModuleList(ResBlock(before if i == 0 else width, width, groups) for i in range(blocks))
        self.attn = nn.ModuleList(AttentionBlock(width, groups) for _ in range(blocks if attention else 0))
        self.downsample = Downsample(width) if resampling == "downsample" else nn.Identity()
        self.upsample = Upsample(width) if resampling == "upsample" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.res):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        return self.upsample(self.downsample(x))


def _middle(channels: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        ResBlock(channels, channels, groups), AttentionBlock(channels, groups), ResBlock(channels, channels, groups)
    )


def _levels(before: int, widths: list[int], blocks: int, groups: int, deepest: int, resampling: str) -> nn.Sequential:
    """A level for each width, resampled after all but the last; before: channels that come in."""
    last = len(widths) - 1
    return nn.Sequential(
        *(
            Level(into, width, blocks, groups, attention=i == deepest, resampling=resampling if i < last else "")
            for i, (into, width) in enumerate(zip([before, *widths], widths, strict=False))
        )
    )


class Encoder(nn.Module):
    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1)
        self.conv_blocks = _levels(
            config.channels, widths, config.res_blocks, config.norm_groups, len(widths) - 1, "downsample"
        )
        self.mid = _middle(widths[-1], config.norm_groups)
        self.norm_out = GroupNorm(config.norm_groups, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        h = self.mid(self.conv_blocks(self.conv_in(images)))
        return self.conv_out(F.silu(self.norm_out(h)))


class Decoder(nn.Module):
    """The encoder mirrored, with one more residual block a level."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in reversed(config.multipliers)]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid = _middle(widths[0], config.norm_groups)
        self.conv_blocks = _levels(widths[0], widths, config.res_blocks + 1, config.norm_groups, 0, "upsample")
        self.norm_out = GroupNorm(config.norm_groups, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        h = self.conv_blocks(self.mid(self.conv_in(latents)))
        return self.conv_out(F.silu(self.norm_out(h)))


class Quantizer(nn.Module):
    """Nearest entry of an L2-normalised codebook. Always float32, under autocast too."""

    codebook_used: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)  # about unit norm; what counts is the direction
        self.register_buffer("codebook_used", torch.zeros(CODEBOOK_USED_SLOTS))

    @torch.no_grad()
    def forward(self, latents: Tensor) -> Tensor:
        """latents (B, D, h, w) -> indices (B, h*w) int64, row by row."""
        with torch.autocast(latents.device.type, enabled=False):
            z_MD = F.normalize(latents.float().permute(0, 2, 3, 1), dim=-1).reshape(-1, latents.shape[1])
            codes_ND = F.normalize(self.embedding.weight.float(), dim=-1)
            return _nearest(z_MD, codes_ND).view(latents.shape[0], -1)

    def lookup(self, indices: Tensor) -> Tensor:
        """indices (...) int64 in [0, size) -> normalised codes (..., D) float32."""
        return F.normalize(F.embedding(indices, self.embedding.weight).float(), dim=-1)


def _nearest(z_MD: Tensor, codes_ND: Tensor) -> Tensor:
    """Index of the nearest code for each latent, (M,) int64.

    The squared distance is expanded as in the released code: another expression would round differently, and
    near ties would give other tokens.
    """
    codes_norm_N = codes_ND.square().sum(1)
    rows = [
        (z.square().sum(1, keepdim=True) + codes_norm_N - 2 * (z @ codes_ND.t())).argmin(1)
        for z in z_MD.split(DISTANCE_ROWS)
    ]
    return torch.cat(rows)


class VQModel(nn.Module):
    """Encoder, quantizer and decoder."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Quantizer(config.codebook_size, config.codebook_dim)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.codebook_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.codebook_dim, config.latent_channels, 1)

    def latents(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [-1, 1] -> latents before quantization (B, D, h, w)."""
        step = self.config.downsampling
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % step or images.shape[3] % step:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (B, 3, H, W) with H and W multiples of {step}"
            )
        return self.quant_conv(self.encoder(images))

    def encode(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [-1, 1] -> indices (B, h*w) int64, row by row."""
        return self.quantize(self.latents(images))

    def decode(self, indices: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """indices (B, h*w) int64 -> images (B, 3, H, W), about [-1, 1], not clipped; grid (h, w), square if None."""
        count = indices.shape[1]
        height, width = grid if grid is not None else (round(count**0.5),) * 2
        if height * width != count:
            raise ValueError(f"{count} indices an image don't fill a grid of {height}x{width}; pass grid=(h, w)")
        codes = self.quantize.lookup(indices).view(indices.shape[0], height, width, -1)
        return self.decoder(self.post_quant_conv(codes.permute(0, 3, 1, 2)))
