"""SEED-X's language model: it reads an image and an instruction, and answers with text and the features of an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import LlamaForCausalLM, LogitsProcessor

from baselines.llama import read_llama, write
from baselines.seed_x.agent import Agent, read_agent
from baselines.seed_x.prompt import IMAGE_TOKENS, Tokens
from baselines.seed_x.vision import SIDE, VisionTransformer, preprocess, read_vision

TOKENIZER = "cvlm_llama2_tokenizer_100img_and_224loc_addpatch"
BONUS = 10.0


class ImageTokens(LogitsProcessor):
    """`<img>` and the image tokens are each followed by the next of them, the last by `</img>`. Elsewhere their scores
    are 0 as published, which is not the lowest: where all others are negative, the first of them is written.

    row: `<img>`, the image tokens, `</img>`.
    """

    def __init__(self, row: Sequence[int]) -> None:
        self.following = dict(pairwise(row))
        self.rest = list(row[1:])

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        assert len(input_ids) == 1, "one prompt at a time"
        scores = scores.clone()
        following = self.following.get(int(input_ids[0, -1]))
        if following is None:
            scores[:, self.rest] = 0.0
        else:
            scores[:, following] = scores.max() + BONUS
        return scores


@dataclass(frozen=True, kw_only=True)
class Reply:
    """text: what was said before the image, or altogether. features: of the image, (1, 64, outputs); None without
    one."""

    text: str
    features: Tensor | None


class LanguageModel(nn.Module):
    """All of one dtype and on one device. new_tokens: at most, in an answer."""

    def __init__(
        self, *, vision: VisionTransformer, agent: Agent, llm: LlamaForCausalLM, tokens: Tokens, new_tokens: int
    ) -> None:
        super().__init__()
        if (rows := llm.config.vocab_size) < tokens.count:
            raise ValueError(f"the language model has {rows} tokens and the tokenizer {tokens.count}; get both again")
        self.vision, self.agent, self.llm = vision, agent, llm
        self.tokens, self.new_tokens = tokens, new_tokens
        self.row = (tokens.begin, *tokens.image, tokens.end)

    def reply(self, image: Image.Image, instruction: str) -> Reply:
        """To an image, RGB of any size, and an instruction. Greedy; it ends with the first image."""
        prompt = self.tokens.prompt(instruction)
        said, features = self.respond(prompt.ids, prompt.views, preprocess(image))
        return Reply(text=self.tokens.text(said), features=features)

    @torch.inference_mode()
    def respond(self, ids: Sequence[int], views: Sequence[int], pixels: Tensor) -> tuple[list[int], Tensor | None]:
        """The tokens of the answer, and the features (1, 64, outputs) of the image that ends it. ids, views: of a
        Prompt. pixels: of `preprocess`."""
        written = write(
            self.llm,
            ids,
            self.embeddings(ids, views, pixels),
            new_tokens=self.new_tokens,
            ends=(self.tokens.end_of_text, self.tokens.end),
            processors=[ImageTokens(self.row)],
        )
        said = written.tokens[len(ids) :]
        if said[-len(self.row) :] != list(self.row):
            return said, None
        # Of each image token when it is read, not when it is predicted; the last token of all, </img>, is not read.
        return said, self.agent.output_resampler(written.states[None, -IMAGE_TOKENS:])

    def embeddings(self, ids: Sequence[int], views: Sequence[int], pixels: Tensor) -> Tensor:
        """(N, width), what is read for the tokens of a prompt. pixels: of `preprocess`."""
        device, dtype = self.llm.device, self.llm.dtype
        embeddings = self.llm.get_input_embeddings()(torch.tensor(list(ids), device=device))
        view = self.agent.view(self.vision(pixels.to(device, dtype)))[0]
        for start in views:
            embeddings[start : start + IMAGE_TOKENS] = view
        return embeddings

    @torch.inference_mode()
    def null_features(self) -> Tensor:
        """(1, 64, outputs): of the mean grey image, for guidance to lead away from. Means of tokens that follow one
        another, whatever their places in the image."""
        grey = torch.zeros(1, 3, SIDE, SIDE, device=self.llm.device, dtype=self.llm.dtype)
        return self.vision(grey).unflatten(1, (IMAGE_TOKENS, -1)).mean(dim=2)


def read_language_model(
    folder: Path, qwen: Path, *, vision_heads: int, agent_heads: int, new_tokens: int, dtype: torch.dtype, device: str
) -> LanguageModel:
    """folder: with agent/, llm/ and TOKENIZER. qwen: Qwen-VL-Chat's folder. For heads and new_tokens see
    `seed_x.Procedure`. Raises ValueError for files that are missing or do not fit."""
    return LanguageModel(
        vision=read_vision(qwen, vision_heads, dtype, device),
        agent=read_agent(folder / "agent" / "pytorch_model.bin", agent_heads, dtype, device),
        llm=read_llama(folder / "llm", dtype=dtype, device=device),
        tokens=Tokens(folder / TOKENIZER),
        new_tokens=new_tokens,
    )
