"""Captions of images by BLIP, worded as by LAVIS' `blip_caption` with which Pix2Pix-Zero was published on PIE-Bench.

The published checkpoint, LAVIS' blip_coco_caption_base.pth, has no release that transformers reads: BLIP's base model
takes its place, with the same prompt, beams and lengths. A conversion of the published one may lie in its folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from baselines.method import MethodContext

REPOSITORY = "Salesforce/blip-image-captioning-base"
FOLDER = REPOSITORY.split("/")[1]
WEIGHTS = "model.safetensors"
FILES = (WEIGHTS, "config.json", "preprocessor_config.json", "tokenizer_config.json", "vocab.txt")  # must be there
PROMPT = "a picture of"
GENERATION = {"num_beams": 3, "min_length": 10, "max_length": 30, "do_sample": False}


def find_captioner(context: MethodContext) -> Path:
    """The folder with all of FILES, in the user's weights or the hub's cache. Raises ValueError where there is none."""
    if context.weights is not None and (context.weights / FOLDER).is_dir():
        folder = context.weights / FOLDER
    else:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(REPOSITORY, FILES[0])
        folder = Path(cached).parent if isinstance(cached, str) else (context.weights or Path("weights")) / FOLDER
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise ValueError(
            f"{folder} is no BLIP, which captions images for Pix2Pix-Zero: {', '.join(missing)} missing; put the files "
            f"of {REPOSITORY} there, as --weights DIR, or fetch it into the hub's cache"
        )
    return folder


def captioner_files(folder: Path) -> list[str]:
    """All that is read of a folder: the weights, configurations and the tokenizer."""
    return sorted({WEIGHTS, *(path.name for pattern in ("*.json", "*.txt") for path in folder.glob(pattern))})


class Captioner:
    def __init__(self, folder: Path, device: str) -> None:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self.device = device
        self.processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
        loaded: Any = BlipForConditionalGeneration.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
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
