"""DPT-large (Ranftl et al. 2021), the judge of depth, through transformers."""

from typing import Any

from PIL import Image
from torch import Tensor

from editar.io.tensors import check_archives
from metrics.networks.official import Found, OfficialNetwork

# The first fusion layer has nothing to add and never uses this part, which the published file therefore lacks.
UNUSED = "neck.fusion_stage.layers.0.residual_layer1."


class OfficialDepth(OfficialNetwork):
    """Depth as transformers' DPT gives it from a folder in its format, with the folder's own image preparation."""

    def __init__(self, weights: Found, *, device: str = "cpu") -> None:
        from transformers import DPTForDepthEstimation
        from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
        from transformers.utils import logging

        super().__init__(weights, "dpt-large", device)
        check_archives(weights.path)
        # On PIL images, as when the numbers were published; transformers' newer tensor version differs in last bits.
        self.processor = DPTImageProcessorPil.from_pretrained(weights.folder)
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # it warns of UNUSED
        loaded: Any = DPTForDepthEstimation.from_pretrained(weights.folder, output_loading_info=True)
        network, report = loaded
        logging.set_verbosity(verbosity)
        missing = [name for name in report["missing_keys"] if not name.startswith(UNUSED)]
        if missing:
            raise ValueError(f"{weights.path}: no tensor {missing[0]} and {len(missing) - 1} more: not DPT's weights")
        self.network = network.requires_grad_(False).eval().to(device)

    def depth(self, images: Tensor) -> Tensor:
        """8-bit images (B, 3, H, W) in [0, 1] to float32 (B, 384, 384) of unknown scale, larger where nearer."""
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        inputs = self.processor(images=[Image.fromarray(image) for image in pixels], return_tensors="pt")
        return self.network(inputs["pixel_values"].to(self.device)).predicted_depth.float()
