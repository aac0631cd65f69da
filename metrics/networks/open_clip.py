"""CLIP models of open_clip (Cherti et al. 2023): for scores by another CLIP than the one of the published rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from editar.io.digests import file_digest, list_digest
from editar.io.tensors import check_archives


class OpenClip:
    """Embeddings as open_clip computes them, with the model's own preparation of images and texts.

    choice: TAG/ARCHITECTURE of `open_clip.list_pretrained()`, such as laion2b_s32b_b79k/ViT-H-14, which open_clip
    fetches; or a folder with open_clip_config.json and the weights, as open_clip writes it for the hub. precision
    "bfloat16" runs the image tower under autocast. Raises ValueError for a choice that open_clip doesn't have or cannot
    load, and FileNotFoundError for one that cannot be fetched.
    """

    official = False

    def __init__(self, choice: str, *, device: str = "cpu", precision: str = "float32") -> None:
        import open_clip

        folder = Path(choice)
        options: dict[str, Any] = {}
        if folder.is_dir():
            check_archives(folder)
            architecture = f"local-dir:{folder}"
            self.digest = list_digest(file_digest(path) for path in sorted(folder.iterdir()) if path.is_file())
            self.name = f"{folder.resolve().name}@{self.digest[:8]}"
        else:
            tag, _, architecture = choice.partition("/")
            options = {"pretrained": tag, "force_quick_gelu": _published(choice).get("quick_gelu", False)}
            self.digest = file_digest(_fetched(choice))
            self.name = choice
        try:
            model, self.prepare = open_clip.create_model_from_pretrained(architecture, device=device, **options)
            self.tokenizer = open_clip.get_tokenizer(architecture)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"open_clip can't load {choice} (--clip): {error}") from error
        self.model = model.requires_grad_(False).eval()
        self.device, self.precision = device, precision
        self.batch = 8 if device == "cpu" else 64

    def image_embedding(self, images: Tensor) -> Tensor:
        """8-bit images (B, 3, H, W) in [0, 1] to unit vectors (B, D)."""
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return torch.cat([self._embedding(pixels[i : i + self.batch]) for i in range(0, len(pixels), self.batch)])

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit vectors (B, D). One that is too long is cut off, but keeps its end token."""
        return self.model.encode_text(self.tokenizer(list(texts)).to(self.device), normalize=True).float()

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than the model reads, the start and end token counted."""
        most = self.tokenizer.context_length
        if hasattr(self.tokenizer, "encode"):  # CLIP's own tokenizer, which leaves the two tokens out
            return [len(self.tokenizer.encode(text)) + 2 > most for text in texts]
        return [len(self.tokenizer.tokenizer(text).input_ids) > most for text in texts]

    def _embedding(self, pixels: np.ndarray) -> Tensor:
        prepared = torch.stack([self.prepare(Image.fromarray(each)) for each in pixels]).to(self.device)
        bfloat16 = self.precision == "bfloat16"
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=bfloat16):
            return self.model.encode_image(prepared, normalize=True).float()


def _published(choice: str) -> dict[str, Any]:
    import open_clip

    tag, _, architecture = choice.partition("/")
    if config := open_clip.get_pretrained_cfg(architecture, tag):
        return config
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    known = f"of {architecture} it has {', '.join(tags)}" if tags else "open_clip.list_pretrained() has all"
    raise ValueError(f"--clip is {choice!r}, neither a folder nor TAG/ARCHITECTURE of open_clip's models; {known}")


def _fetched(choice: str) -> Path:
    import open_clip

    try:
        return Path(open_clip.download_pretrained(_published(choice)))
    except Exception as error:  # urllib's, the hub's and the HTTP library's kinds
        raise FileNotFoundError(
            f"{choice} is in no cache and could not be fetched: {error}. Fetch it where there is a network, and pass "
            "its folder as --clip DIR"
        ) from error
