"""EditAR's training loss: next-token cross-entropy with conditional dropout, and distillation from a vision encoder."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from editar.model.transformer import EditARTransformer

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
    distillation_weight: float = DISTILLATION_WEIGHT,
    tasks: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Cross-entropy of the target's tokens, plus 0.5 times the MSE to `teacher` if there is one (paper, section 3.3).

    condition, target: indices (B, N); text: (B, L, E); null_image, null_text: (B,) bool; teacher: features
    (B, P, distillation_dim) of a square grid. Not in the paper: `token_weight` (B, N), None weighs every token alike;
    `fed` (B, N), the tokens that the model is shown as the target's earlier ones, None are the target's own.
    tasks: of the B samples; then the cross-entropy of each is given too, as "cross_entropy/<task>".
    """
    hidden = model.features(condition, text, target if fed is None else fed, null_image, null_text)
    logits = model.logits(hidden)
    entropy = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
    weight = torch.ones_like(entropy) if token_weight is None else token_weight
    values = {"cross_entropy": (entropy * weight).sum() / weight.sum()}
    values["loss"] = values["cross_entropy"]
    if teacher is not None:
        student = on_grid_of(teacher, model.distillation_features(hidden).float())
        values["distillation"] = F.mse_loss(student, teacher.float())
        values["loss"] = values["loss"] + distillation_weight * values["distillation"]
    values["accuracy"] = (logits.detach().argmax(-1) == target).float().mean()
    for task in sorted(set(tasks)):
        # Row by row: an index made on the host would wait for the device, and so would a mask.
        rows = [row for row, name in zip(entropy.detach(), tasks, strict=True) if name == task]
        values[f"cross_entropy/{task}"] = torch.stack(rows).mean()
    return values


def on_grid_of(teacher: Tensor, student: Tensor) -> Tensor:
    """student (B, Q, D), resampled to the teacher's grid if that is another one: CLIP has 14 x 14 patches, not 16 x 16.

    teacher: (B, P, D). Both grids are square, row by row.
    """
    if student.shape == teacher.shape:
        return student
    if student.shape[2] != teacher.shape[2]:
        raise ValueError(
            f"the teacher's features are {teacher.shape[2]} wide, but the model's alignment gives {student.shape[2]}"
        )
    old, new = (round(features.shape[1] ** 0.5) for features in (student, teacher))
    grid = student.transpose(1, 2).unflatten(2, (old, old))
    return F.interpolate(grid, (new, new), mode="bilinear", antialias=True).flatten(2).transpose(1, 2)
