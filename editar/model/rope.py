"""Two-dimensional rotary positions on one grid of twice the image's side.

Condition tokens take rows and columns 0..grid-1, target tokens grid..2*grid-1. Text positions have cos = sin = 0,
so text queries and keys are zero and text is attended to uniformly: an identity rotation there would break the
released weights.

Shapes: B batch, T positions, H heads, D head size.
"""

import torch
from torch import Tensor

from editar.config import TransformerConfig


def rotation_table(config: TransformerConfig) -> Tensor:
    """The factors of every position of `[condition][text][target]`: (T, D/2, 2) float32, cosine then sine.

    The first half of the pairs turns with the row, the second with the column, at theta_j = base^(-2j / (D/2)).
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
    """Turn the interleaved pairs of x by the factors of its positions; float32 inside, dtype of x outside."""
    pairs = torch.view_as_complex(x_BTHD.float().unflatten(-1, (-1, 2)))
    turned = pairs * torch.view_as_complex(table_TD2)[:, None]
    return torch.view_as_real(turned).flatten(-2).type_as(x_BTHD)
