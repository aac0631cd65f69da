"""EditAR's training loss: next-token cross-entropy with conditional dropout, and distillation from a vision encoder."""

import torch
import torch.nn.functional as F
from torch import Tensor

from editar.transformer import EditARTransformer

IMAGE_NULL = 0.10
TEXT_NULL_LOW, TEXT_NULL_HIGH = 0.05, 0.95
DISTILLATION_WEIGHT = 0.5  # lambda of the paper


def conditional_dropout(batch: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Which samples lose their image and which their text, two bool tensors (batch,), from one uniform draw a sample.

    5% lose the image only, 5% the text only, 5% both (released training code).
    """
    r = torch.rand(batch, generator=generator)
    return r < IMAGE_NULL, (r < TEXT_NULL_LOW) | (r > TEXT_NULL_HIGH)


def editar_loss(
    model: EditARTransformer,
    condition: Tensor,
    text: Tensor,
    target: Tensor,
    null_image: Tensor | None = None,
    null_text: Tensor | None = None,
    teacher: Tensor | None = None,
    token_weight: Tensor | None = None,
    fed: Tensor | None = None,
) -> dict[str, Tensor]:
    """Cross-entropy of the target's tokens, plus 0.5 times the MSE to `teacher` if there is one (paper, section 3.3).

    condition, target: indices (B, N); text: (B, L, E); null_image, null_text: (B,) bool; teacher: features
    (B, N / 4, distillation_dim). Not in the paper: `token_weight` (B, N), None weighs every token alike; `fed` (B, N),
    the tokens that the model is shown as the target's earlier ones, None are the target's own.
    """
    hidden = model.features(condition, text, target if fed is None else fed, null_image, null_text)
    logits = model.logits(hidden)
    entropy = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
    weight = torch.ones_like(entropy) if token_weight is None else token_weight
    values = {"cross_entropy": (entropy * weight).sum() / weight.sum()}
    values["loss"] = values["cross_entropy"]
    if teacher is not None:
        values["distillation"] = F.mse_loss(model.distillation_features(hidden).float(), teacher.float())
        values["loss"] = values["loss"] + DISTILLATION_WEIGHT * values["distillation"]
    values["accuracy"] = (logits.detach().argmax(-1) == target).float().mean()
    return values
