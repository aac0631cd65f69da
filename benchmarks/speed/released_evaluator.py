"""The released PIE-Bench evaluator's way of scoring: the opponent of `python -m benchmarks.speed metrics`.

One image, one method and one metric at a time, each from the 8-bit images on, through torchmetrics' metric objects:
source features, masks, prompts and networks are gone through again for every method. Written anew from what that code
does (cure-lab/PnPInversion, evaluation/matrics_calculator.py); its habits that cost time are kept: hooks on every block
of DINO, attention with its scores in memory, and gradients on while the edited image goes through DINO.
Not for scoring: metrics/ gives the same values.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Pixels = NDArray[np.uint8]


class ReleasedEvaluator:
    """weights: a folder with the three official names (metrics/networks/official.py). device: of all of it."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        from torchmetrics.multimodal import CLIPScore
        from torchmetrics.regression import MeanSquaredError

        self.clip = CLIPScore(lambda: _clip_for_torchmetrics(weights / "clip-vit-large-patch14")).to(device)
        self.psnr = PeakSignalNoiseRatio(data_range=1.0).to(device)
        with _torch_hub_at(weights):
            self.lpips = LearnedPerceptualImagePatchSimilarity(net_type="squeeze").to(device)
        self.mse = MeanSquaredError().to(device)
        self.ssim = StructuralSimilarityIndexMeasure(data_range=1.0).to(device)
        self.dino = _DinoWithHooks(weights / "dino_vitbase8_pretrain.pth", device)
        self.device = device

    def score(self, source: Pixels, edited: Pixels, mask: NDArray[np.float64], prompt: str) -> dict[str, float]:
        """The seven columns, as the evaluator writes them (NaN where it writes "nan", CLIP on its scale of 100).

        source, edited: (H, W, 3) uint8; mask: (H, W, 3), 1 where edited.
        """
        background = 1 - mask
        has_background, has_edit = background.sum() != 0, mask.sum() != 0
        return {
            "structure_distance": self.structure_distance(source, edited),
            "psnr": self._pair(self.psnr, edited, source, background) if has_background else np.nan,
            "lpips": self._lpips(edited, source, background) if has_background else np.nan,
            "mse": self._pair(self.mse, edited, source, background) if has_background else np.nan,
            "ssim": self._pair(self.ssim, edited, source, background) if has_background else np.nan,
            "clip_whole": self._clip(edited, prompt),
            "clip_edited": self._clip(np.uint8(edited * mask), prompt) if has_edit else np.nan,
        }

    def structure_distance(self, source: Pixels, edited: Pixels) -> float:
        with torch.no_grad():
            target = self.dino.self_similarity(source)
        return F.mse_loss(self.dino.self_similarity(edited), target).item()

    def _pair(self, metric: Any, first: Pixels, second: Pixels, keep: NDArray[np.float64]) -> float:
        return metric(*(_masked(image, keep).contiguous().to(self.device) for image in (first, second))).item()

    def _lpips(self, first: Pixels, second: Pixels, keep: NDArray[np.float64]) -> float:
        return self.lpips(*(_masked(image, keep).to(self.device) * 2 - 1 for image in (first, second))).item()

    def _clip(self, image: Any, prompt: str) -> float:
        return self.clip(torch.tensor(image).permute(2, 0, 1).to(self.device), prompt).item()


class _DinoWithHooks:
    """Keys of block 11, caught by hooks that store the output of every block, attention map and projection."""

    def __init__(self, path: Path, device: str) -> None:
        import timm
        from torchvision.transforms import Compose, Normalize, Resize

        self.network = timm.create_model("vit_base_patch8_224", num_classes=0).eval()
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network.to(device)
        self.device = device
        self.blocks = list(self.network.get_submodule("blocks").children())
        for block in self.blocks:
            block.get_submodule("attn").fused_attn = False  # type: ignore[assignment]
        self.prepare = Compose([Resize(224, max_size=480), Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])

    def self_similarity(self, image: Pixels) -> Tensor:
        pixels = torch.from_numpy(np.transpose(np.array(image).astype(np.float32), (2, 0, 1)))
        stored: dict[str, list[Tensor]] = {"block": [], "map": [], "qkv": [], "attention": []}
        hooks = []
        parts = {"block": "", "map": "attn.attn_drop", "qkv": "attn.qkv", "attention": "attn"}
        for block in self.blocks:
            for name, path in parts.items():
                part = block.get_submodule(path)
                hooks.append(part.register_forward_hook(lambda _, __, out, name=name: stored[name].append(out)))
        self.network(self.prepare(pixels)[None].to(self.device))
        for hook in hooks:
            hook.remove()
        tokens, width = stored["qkv"][11].shape[1], stored["qkv"][11].shape[2] // 3
        heads = stored["qkv"][11].reshape(tokens, 3, 12, width // 12).permute(1, 2, 0, 3)[1]
        keys = heads.transpose(0, 1).reshape(tokens, width)[None]
        norms = keys.norm(dim=2, keepdim=True)
        return keys @ keys.permute(0, 2, 1) / torch.clamp(norms @ norms.permute(0, 2, 1), min=1e-8)


def _clip_for_torchmetrics(folder: Path) -> tuple[Any, Any]:
    """transformers' CLIP for torchmetrics 1.9, which expects tensors where transformers 5 returns objects."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder).eval()
    for name in ("get_image_features", "get_text_features"):
        features = getattr(model, name)
        setattr(model, name, lambda *inputs, features=features: features(*inputs).pooler_output)
    return model, CLIPProcessor(CLIPImageProcessor(), CLIPTokenizer.from_pretrained(folder))


def _masked(image: Pixels, keep: NDArray[np.float64]) -> Tensor:
    pixels = np.array(image).astype(np.float32) / 255
    return torch.tensor(pixels * np.array(keep).astype(np.float32)).permute(2, 0, 1).unsqueeze(0)


@contextmanager
def _torch_hub_at(weights: Path) -> Iterator[None]:
    """torchmetrics takes SqueezeNet from torch hub's cache: show it the file of `weights` there."""
    before = torch.hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Path(folder) / "checkpoints"
        checkpoints.mkdir()
        name = "squeezenet1_1-b8a52dc0.pth"
        (checkpoints / name).symlink_to((weights / name).resolve())
        torch.hub.set_dir(folder)
        try:
            yield
        finally:
            torch.hub.set_dir(before)
