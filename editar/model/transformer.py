"""The autoregressive transformer: LlamaGen's GPT over `[condition image][text][target image]`.

Shape suffixes: B batch, T positions, C channels (`dim`), H heads, D head size, L text positions, E text width,
N image tokens, V vocabulary.
State-dict names are those of the released `editar_release.pt`.
"""

from collections.abc import Callable, Iterable
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editar.config import TransformerConfig

# What new positions take in: their queries, keys and values, (B, H, T, D) each, to (B, H, T, D). Training attends
# causally among the new positions; decoding keeps their keys and values, and attends to those of earlier ones.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class RMSNorm(nn.Module):
    """Normalised in float32, cast back, then weighted: the order matters in bfloat16."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, None, self.eps).type_as(x) * self.weight


class Attention(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.head_dim = config.head_dim
        self.wqkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.wo = nn.Linear(config.dim, config.dim, bias=False)
        self.dropout = nn.Dropout(config.residual_dropout)

    def forward(self, x_BTC: Tensor, table_TD2: Tensor, attend: Attend) -> Tensor:
        qkv = self.wqkv(x_BTC).unflatten(-1, (3 * self.heads, self.head_dim))
        qk = rotate(qkv[:, :, : 2 * self.heads], table_TD2)
        q, k = qk.transpose(1, 2).split(self.heads, dim=1)
        v = qkv[:, :, 2 * self.heads :].transpose(1, 2)
        return self.dropout(self.wo(attend(q, k, v).transpose(1, 2).flatten(2)))


def attend_causally(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor) -> Tensor:
    """Each position attends to itself and those before it, (B, H, T, D)."""
    if q_BHTD.device.type == "cpu" and q_BHTD.dtype == torch.bfloat16 and q_BHTD.requires_grad:
        # On a CPU the fused kernel's bfloat16 backward takes three times as long as the plain products.
        length = q_BHTD.shape[2]
        future = torch.full((length, length), float("-inf"), dtype=q_BHTD.dtype).triu(1)
        weights = (q_BHTD @ k_BHTD.transpose(2, 3) * q_BHTD.shape[3] ** -0.5 + future).softmax(-1)
        return weights @ v_BHTD
    return F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=True)


class FeedForward(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w2 = nn.Linear(config.ffn_dim, config.dim, bias=False)
        self.dropout = nn.Dropout(config.ffn_dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.w2(F.silu(self.w1(x)) * self.w3(x)))


class Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, x: Tensor, table_TD2: Tensor, attend: Attend) -> Tensor:
        x = x + self.attention(self.attention_norm(x), table_TD2, attend)
        return x + self.feed_forward(self.ffn_norm(x))


class TextProjection(nn.Module):
    """Two linears with a tanh GELU, no biases."""

    def __init__(self, text_dim: int, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(text_dim, dim, bias=False)
        self.fc2 = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class TextEmbedding(nn.Module):
    """Projects the text encoder's output; a null text replaces the *raw* sequence, before the projection."""

    uncond_embedding: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.cap_proj = TextProjection(config.text_dim, config.dim)
        _add_null(self, "uncond_embedding", (config.text_length, config.text_dim), config.trainable_null)

    def forward(self, text_BLE: Tensor, null_B: Tensor | None) -> Tensor:
        text_BLE = text_BLE.to(self.cap_proj.fc1.weight.dtype)
        if null_B is not None:
            text_BLE = torch.where(null_B[:, None, None], self.uncond_embedding, text_BLE)
        return self.cap_proj(text_BLE)


class EditARTransformer(nn.Module):
    """Predicts the target image's tokens from a condition image's tokens and a text."""

    img_uncond_embedding: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.cls_embedding = TextEmbedding(config)
        _add_null(self, "img_uncond_embedding", (config.image_tokens, config.dim), config.trainable_null)
        self.tok_dropout = nn.Dropout(config.token_dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.alignment = nn.Conv2d(config.dim, config.distillation_dim, kernel_size=2, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=config.initial_std)
        nn.init.zeros_(self.output.weight)
        # Not a buffer: a cast of the model to bfloat16 must not round the positions.
        self._rotations: dict[torch.device, Tensor] = {}

    def forward(
        self,
        condition_BN: Tensor,
        text_BLE: Tensor,
        target_BN: Tensor,
        null_image_B: Tensor | None = None,
        null_text_B: Tensor | None = None,
    ) -> Tensor:
        """Teacher-forced logits of all target tokens, (B, N, V) float32; arguments as in `features`."""
        return self.logits(self.features(condition_BN, text_BLE, target_BN, null_image_B, null_text_B))

    def features(
        self,
        condition_BN: Tensor,
        text_BLE: Tensor,
        target_BN: Tensor,
        null_image_B: Tensor | None = None,
        null_text_B: Tensor | None = None,
    ) -> Tensor:
        """Final-norm states at the N positions that predict the target's tokens, (B, N, C).

        condition_BN, target_BN: token indices int64 in [0, V); the last target token is dropped on input.
        text_BLE: the text encoder's raw output. null_image_B, null_text_B: bool, the samples whose condition or
        text is replaced by the null embedding (conditional dropout, decided by the caller).
        """
        self.check(condition_BN, text_BLE, target_BN)
        condition = self.tok_embeddings(condition_BN)
        if null_image_B is not None:
            condition = torch.where(null_image_B[:, None, None], self.img_uncond_embedding, condition)
        text = self.tok_dropout(self.cls_embedding(text_BLE, null_text_B))
        target = self.tok_embeddings(target_BN[:, :-1])
        h = torch.cat([condition, text, target], dim=1)
        h = self.run(h, self.rotations(h.device)[: h.shape[1]], repeat(attend_causally))
        return self.norm(h[:, -self.config.image_tokens :])

    def logits(self, features_BNC: Tensor) -> Tensor:
        """features (..., C) -> logits (..., V), float32."""
        return self.output(features_BNC).float()

    def distillation_features(self, features_BNC: Tensor) -> Tensor:
        """features (B, N, C) -> (B, N/4, distillation_dim), matched with the teacher's patches in training."""
        side = self.config.grid
        grid = features_BNC.transpose(1, 2).unflatten(2, (side, side))
        return self.alignment(grid).flatten(2).transpose(1, 2)

    def run(self, h_BTC: Tensor, table_TD2: Tensor, attends: Iterable[Attend]) -> Tensor:
        """All layers, with the rotations of the positions and one way to attend per layer; before the final norm."""
        for block, attend in zip(self.layers, attends, strict=False):
            h_BTC = block(h_BTC, table_TD2, attend)
        return h_BTC

    def rotations(self, device: torch.device) -> Tensor:
        """`rotation_table` on a device."""
        if device not in self._rotations:
            with torch.inference_mode(False):  # or a model that has decoded could not be trained
                self._rotations[device] = rotation_table(self.config).to(device)
        return self._rotations[device]

    def check(self, condition: Tensor, text: Tensor, target: Tensor | None = None) -> None:
        """Raise ValueError where tokens or text have the wrong shape for this model."""
        c = self.config
        for name, tokens in (("condition", condition), ("target", target)):
            if tokens is not None and (tokens.ndim != 2 or tokens.shape[1] != c.image_tokens):
                raise ValueError(f"{name} tokens have shape {tuple(tokens.shape)}; expected (B, {c.image_tokens})")
        if text.ndim != 3 or tuple(text.shape[1:]) != (c.text_length, c.text_dim):
            raise ValueError(f"text has shape {tuple(text.shape)}; expected (B, {c.text_length}, {c.text_dim})")


def _add_null(module: nn.Module, name: str, shape: tuple[int, int], trainable: bool) -> None:
    value = torch.empty(shape).normal_(std=shape[1] ** -0.5)
    if trainable:
        module.register_parameter(name, nn.Parameter(value))
    else:
        module.register_buffer(name, value)


def rotation_table(config: TransformerConfig) -> Tensor:
    """The factors of every position of `[condition][text][target]`: (T, D/2, 2) float32, cosine then sine.

    Two-dimensional rotary positions on one grid of twice the image's side: condition tokens take rows and columns
    0..grid-1, target tokens grid..2*grid-1. Text positions have cos = sin = 0, so text queries and keys are zero and
    text is attended to uniformly: an identity rotation there would break the released weights. The first half
    of the pairs turns with the row, the second with the column, at theta_j = base^(-2j / (D/2)).
    """
    half = config.head_dim // 2
    theta = 1.0 / config.rope_base ** (torch.arange(0, half, 2)[: half // 2].float() / half)
    angles = torch.outer(torch.arange(2 * config.grid).float(), theta)  # (2*grid, D/4)
    axis = torch.stack([angles.cos(), angles.sin()], dim=-1)

    def square(start: int) -> Tensor:
        side = axis[start : start + config.grid]
        rows = side[:, None].expand(-1, config.grid, -1, -1)
        columns = side[None, :].expand(config.grid, -1, -1, -1)
        return torch.cat([rows, columns], dim=2).reshape(config.image_tokens, half, 2)

    text = torch.zeros(config.text_length, half, 2)
    return torch.cat([square(0), text, square(config.grid)])


def rotate(x_BTHD: Tensor, table_TD2: Tensor) -> Tensor:
    """Turn the interleaved pairs of x by the factors of its positions, each sample's own where the table is
    (B, T, D/2, 2); float32 inside, dtype of x outside."""
    pairs = torch.view_as_complex(x_BTHD.float().unflatten(-1, (-1, 2)))
    turned = pairs * torch.view_as_complex(table_TD2)[..., None, :]
    return torch.view_as_real(turned).flatten(-2).type_as(x_BTHD)
