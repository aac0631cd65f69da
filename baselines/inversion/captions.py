"""Captions of images by BLIP, worded as by LAVIS' `blip_caption` with which Pix2Pix-Zero was published on PIE-Bench.

The published checkpoint, LAVIS' blip_coco_caption_base.pth, has no release that transformers reads: BLIP's base model
takes its place, with the same prompt, beams and lengths. A conversion of the published one may lie in its folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from baselines.assets import ASSETS
from editar.io.tensors import check_archives

BLIP = ASSETS["blip-image-captioning-base"]
PROMPT = "a picture of"
GENERATION = {"num_beams": 3, "min_length": 10, "max_length": 30, "do_sample": False}


class Captioner:
    def __init__(self, folder: Path, device: str) -> None:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self.device = device
        check_archives(folder)
        self.processor = BlipProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        loaded: Any = BlipForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
        model, report = loaded
        if missing := sorted(report["missing_keys"]):  # transformers would only warn and leave them random
            raise ValueError(f"{folder} lacks {len(missing)} of its weights, {missing[0]} first; get its files again")
        self.model = model.requires_grad_(False).eval().to(device)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        """One caption for each RGB image, without the words that it was prompted with. One image at a time."""
        captions = []
        for image in images:
            inputs = self.processor(image, PROMPT, return_tensors="pt").to(self.device)
            tokens = self.model.generate(**inputs, **GENERATION)[0]
            text = self.processor.decode(tokens, skip_special_tokens=True)
            captions.append(text.removeprefix(PROMPT).strip())
        return captions
