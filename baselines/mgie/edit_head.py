"""MGIE's edit head: a small transformer from the language model's hidden states to what the UNet reads as a prompt.

Of `EditMapper` in mgie_llava.py of apple/ml-mgie (Fu et al. 2024, arXiv:2309.17102, the edit head T).
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from baselines.stable_diffusion.ldm import empty, fill
from editar.io.tensors import CheckpointError, map_pickle

HEADS = 4  # leave no trace in the shapes
PREFIX, IMAGE_EMBEDDINGS = "edit_head.", "emb"  # names in mllm.pt


@dataclass(frozen=True, kw_only=True)
class EditHeadSizes:
    """The defaults are the published ones. hidden: of the language model's states, one for each of `tokens` tokens.
    queries, features: of the prompt's embeddings. width, feed_forward, layers: inside, the latter of the encoder and
    again of the decoder."""

    tokens: int = 8
    hidden: int = 4096
    width: int = 512
    feed_forward: int = 2048
    layers: int = 4
    queries: int = 77
    features: int = 768

    @classmethod
    def of(cls, state: dict[str, Tensor], path: Path) -> "EditHeadSizes":
        """Read off a few tensors of an mllm.pt; that all the others fit is checked when they are loaded."""
        layers = f"{PREFIX}mapper.encoder.layers."
        try:
            tokens, hidden = state[IMAGE_EMBEDDINGS].shape[-2:]
            _, queries, width = state[f"{PREFIX}query"].shape
            return cls(
                tokens=tokens,
                hidden=hidden,
                width=width,
                feed_forward=len(state[f"{layers}0.linear1.weight"]),
                layers=len({name.removeprefix(layers).split(".")[0] for name in state if name.startswith(layers)}),
                queries=queries,
                features=len(state[f"{PREFIX}hid2feat.weight"]),
            )
        except KeyError as error:
            raise CheckpointError(f"{path}: no mllm.pt of MGIE, {error.args[0]} is missing") from error


class EditHead(nn.Module):
    """The published module, under its parameters' names. `image_tokens` (tokens, hidden), the embeddings of [IMG0] to
    [IMG7], is beside it in the file, as "emb"."""

    image_tokens: Tensor

    def __init__(self, sizes: EditHeadSizes) -> None:
        super().__init__()
        width = sizes.width
        self.llm2hid = nn.Linear(sizes.hidden, width)
        self.query = nn.Parameter(torch.empty(1, sizes.queries, width))
        with warnings.catch_warnings():  # that normalising first rules out nested tensors, which nobody wants here
            warnings.simplefilter("ignore")
            self.mapper = nn.Transformer(
                d_model=width, nhead=HEADS, num_encoder_layers=sizes.layers, num_decoder_layers=sizes.layers,
                dim_feedforward=sizes.feed_forward, dropout=0.0, batch_first=True, norm_first=True,
            )  # fmt: skip
        self.hid2feat = nn.Linear(width, sizes.features)
        self.register_buffer("image_tokens", torch.zeros(sizes.tokens, sizes.hidden), persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """(B, queries, features) from the states (B, tokens, hidden). No mask: the queries see one another."""
        source = self.llm2hid(states + self.image_tokens)
        return self.hid2feat(self.mapper(source, self.query.expand(len(states), -1, -1)))

    def null(self) -> Tensor:
        """(1, queries, features): the prompt that guidance leads away from. The head was trained with zeros for a
        dropped instruction; the text encoder's empty prompt plays no part."""
        return self(torch.zeros_like(self.image_tokens)[None])


def read_edit_head(path: Path) -> EditHead:
    """The edit head in mllm.pt, float32, in evaluation mode. Nothing of the pickle's code is run. Raises
    CheckpointError naming every missing, unexpected and misshapen tensor."""
    state, _ = map_pickle(path)
    sizes = EditHeadSizes.of(state, path)
    head = fill(empty(lambda: EditHead(sizes)), state, path, PREFIX)
    head.image_tokens = state[IMAGE_EMBEDDINGS].reshape(sizes.tokens, sizes.hidden).float()
    return head
