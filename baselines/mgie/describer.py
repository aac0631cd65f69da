"""MGIE's language side: LLaVA-7B reads image and instruction and writes an expressive instruction and image tokens; the
edit head takes the hidden states that predict these.

Done as in apple/ml-mgie's demo.ipynb, a sample at a time: in half precision, batches of other sizes may write other
tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionModel, LlamaForCausalLM, StoppingCriteria
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from baselines.llama import Written, write
from baselines.mgie.prompts import IMAGES, Prompter, SpecialTokens
from baselines.mgie.settings import END, NEW_TOKENS, NO_REPEAT
from baselines.mgie.weights import LAYER, read_language_model, read_vision
from editar.io.tensors import CheckpointError

NEVER = "no [IMG0] was written; the last eight states but one were taken, as in the published code"
LATE = "[IMG0] was written too near the end; earlier states were taken, as in the published code"


@dataclass(frozen=True, kw_only=True)
class Description:
    """states: (8, hidden), on the CPU. instruction: the expressive one. fallback: why the states are not those that
    predict [IMG0] to [IMG7]; "" where they are."""

    states: Tensor
    instruction: str
    fallback: str


class Reader:
    """Vision tower, projector and language model, in evaluation mode: tokens and pixels in, tokens and states out.

    projector: from the tower's features to the language model's embeddings.
    """

    def __init__(
        self, language_model: LlamaForCausalLM, projector: nn.Linear, vision: CLIPVisionModel, special: SpecialTokens
    ) -> None:
        self.language_model, self.projector, self.vision = language_model, projector, vision
        self.special = special

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.language_model, self.projector, self.vision

    @torch.inference_mode()
    def look(self, pixels: Tensor) -> Tensor:
        """(1, 3, side, side) -> (patches, features), without the class token, and without the norm that would follow
        the last block."""
        weight = self.projector.weight
        seen: Any = self.vision(pixels.to(weight.device, weight.dtype), output_hidden_states=True)
        return seen.hidden_states[LAYER][0, 1:]

    @torch.inference_mode()
    def embed(self, tokens: Sequence[int], features: Tensor) -> Tensor:
        """(tokens, hidden): the projected features stand behind the last <im_start>, in the place of the patches.
        Earlier ones could only be the instruction's own words."""
        ids = torch.tensor(list(tokens), device=features.device)
        embeddings = self.language_model.get_input_embeddings()(ids)
        first = int((ids == self.special.start).nonzero()[-1]) + 1
        return torch.cat([embeddings[:first], self.projector(features), embeddings[first + len(features) :]])

    def answer(self, prompt: Sequence[int], features: Tensor, new_tokens: int = NEW_TOKENS) -> Written:
        """Greedy, until the image tokens are written or there are `new_tokens`."""
        return write(
            self.language_model,
            prompt,
            self.embed(prompt, features),
            new_tokens=new_tokens,
            ends=[END],
            no_repeat=NO_REPEAT,
            stops=[_ImagesWritten(self.special.images[0])],
        )


class Describer:
    """What MGIE says of an image and an instruction. processor: makes the pixels that the vision tower sees."""

    def __init__(self, reader: Reader, prompter: Prompter, processor: Any) -> None:
        self.reader, self.prompter, self.processor = reader, prompter, processor

    @classmethod
    def load(cls, llava: Path, mllm: Path, clip: Path, *, device: str, dtype: torch.dtype) -> "Describer":
        """llava: the folder LLaVA-7B-v1. mllm: MGIE's mllm.pt. clip: the folder of CLIP ViT-L/14. Raises
        CheckpointError for files that do not fit."""
        language_model, projector = read_language_model(llava, mllm, dtype=dtype, device=device)
        prompter = Prompter(llava / "tokenizer.json", language_model.config.vocab_size)
        vision = read_vision(clip, dtype=dtype, device=device)
        processor: Any = CLIPImageProcessorPil.from_pretrained(clip, local_files_only=True)
        if (given := vision.config.hidden_size) != (taken := projector.in_features):
            raise CheckpointError(f"{clip}: its vision tower gives {given} features, the projector takes {taken}")
        if {processor.crop_size.height, processor.crop_size.width} != {vision.config.image_size}:
            raise CheckpointError(f"{clip}: crop_size is not the {vision.config.image_size} pixels of its vision tower")
        return cls(Reader(language_model, projector, vision, prompter.special), prompter, processor)

    def describe(self, image: Image.Image, instruction: str) -> Description:
        """image: RGB. Of one that is no square the language model does not see the ends."""
        features = self.reader.look(self.processor(image, return_tensors="pt")["pixel_values"])
        prompt = self.prompter.prompt(instruction, len(features))
        written = self.reader.answer(prompt, features)
        tokens, image_token = written.tokens, self.prompter.special.images[0]
        found = tokens.index(image_token) if image_token in tokens else None
        start = first_state(tokens, image_token, len(written.states))
        return Description(
            states=written.states[start : start + len(IMAGES)].cpu(),
            instruction=self.prompter.text(tokens[len(prompt) : found]),
            fallback=NEVER if found is None else LATE if start < found - 1 else "",
        )


def first_state(tokens: Sequence[int], image_token: int, states: int) -> int:
    """Where the eight states begin, of `states`, one for each of `tokens` but the last: at the one that predicts the
    first [IMG0]. Where there is none, or too late, the last eight but one are taken, as published."""
    last = states - len(IMAGES) - 1
    return min(tokens.index(image_token) - 1, last) if image_token in tokens else last


class _ImagesWritten(StoppingCriteria):
    """Stops when nine tokens from the first [IMG0] on are there: `first_state` then gives what it gives with all 96."""

    def __init__(self, image_token: int) -> None:
        self.image_token = image_token

    def __call__(self, input_ids: Any, scores: Any, **others: Any) -> Any:
        is_image = input_ids == self.image_token
        behind = input_ids.shape[1] - is_image.int().argmax(dim=1)
        return is_image.any(dim=1) & (behind > len(IMAGES))
