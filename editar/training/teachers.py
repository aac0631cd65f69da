"""The vision encoders that EditAR is distilled from (paper, section 3.3): DINOv2, and CLIP for the ablation."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 224  # pixels that both encoders take
RELEASED_RESIZE = 256  # of DINOv2's published preprocessing, from which the middle 224 are taken


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """What the model's features are drawn to."""

    teacher: Literal["none", "dinov2", "clip"] = "dinov2"
    """The encoder; the paper's is DINOv2."""
    weight: float = 0.5
    """Of the mean square error in the loss; lambda of the paper."""
    crop: Literal["released", "aligned"] = "released"
    """What the encoder sees: as the released code the middle of the image, whose patches don't lie over the model's;
    or all of it."""
    source: str | None = None
    """A folder in transformers' format, or another hub id, of the encoder."""

    def __post_init__(self):
        if not self.weight >= 0:
            raise ValueError(f"distillation.weight is {self.weight}; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Where an encoder is published, and the statistics that its images are normalised with."""

    source: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


ENCODERS = {
    "dinov2": Encoder(source="facebook/dinov2-base", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "clip": Encoder(
        source="openai/clip-vit-base-patch16",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    ),
}


class Teacher:
    """Images to the features of their patches, frozen."""

    def __init__(self, config: DistillationConfig, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """config.teacher must not be "none"; dtype: of the encoder's arithmetic, bfloat16 in the released training."""
        self.config, self.encoder = config, ENCODERS[config.teacher]
        self.dtype = dtype
        self.model = _load(config.teacher, config.source or self.encoder.source, dtype).to(device)
        self.model.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """images uint8 (B, 3, side, side), square -> features (B, P, D) of P patches, row by row, float32."""
        pixels = self.prepare(images).to(self.dtype)
        return self.model(pixel_values=pixels).last_hidden_state[:, 1:].float()  # the first one is of the whole image

    def prepare(self, images: Tensor) -> Tensor:
        """images uint8 (B, 3, side, side) -> normalised float32 (B, 3, 224, 224)."""
        from torchvision.transforms.functional import normalize

        cut = self.config.crop == "released" and self.config.teacher == "dinov2"  # CLIP's own preparation cuts nothing
        side = RELEASED_RESIZE if cut else SIDE
        pixels = F.interpolate(images.float() / 255, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        margin = (side - SIDE) // 2
        pixels = pixels[:, :, margin : margin + SIDE, margin : margin + SIDE]
        return normalize(pixels, list(self.encoder.mean), list(self.encoder.std))


def _load(teacher: str, source: str, dtype: torch.dtype) -> torch.nn.Module:
    from transformers import CLIPVisionModel, Dinov2Model

    kind = Dinov2Model if teacher == "dinov2" else CLIPVisionModel
    try:
        return kind.from_pretrained(source, dtype=dtype)
    except OSError as error:
        raise FileNotFoundError(
            f"no {teacher} at {source!r}: give a copy of {ENCODERS[teacher].source} as distillation.source, or make "
            "the hub reachable"
        ) from error
