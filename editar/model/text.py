"""Text encoders: strings in, a padded sequence of embeddings out. Raw, case-preserving text goes in.

Shape suffixes: B batch, L positions, E width.
"""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editar.config import WordTextConfig

PAD, UNKNOWN, END = 0, 1, 2  # the ids before the vocabulary's words
WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")


class _WordBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=mask)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.ffn(self.norm2(x))


class WordTextEncoder(nn.Module):
    """A word vocabulary and a small bidirectional transformer, trained together with the model (miniature).

    Lower-cased words; unknown ones share an id; an end mark; right padded. Padding is not attended to here, but
    its embeddings are not zeroed either: the model sees them, as it sees T5's.
    """

    def __init__(self, config: WordTextConfig) -> None:
        super().__init__()
        self.config = config
        self.ids = {word: END + 1 + i for i, word in enumerate(config.vocabulary)}
        self.words = nn.Embedding(END + 1 + len(config.vocabulary), config.dim)
        self.positions = nn.Parameter(torch.zeros(config.length, config.dim))
        self.blocks = nn.ModuleList(_WordBlock(config.dim, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        nn.init.normal_(self.words.weight, std=0.5)
        nn.init.normal_(self.positions, std=0.5)

    @property
    def length(self) -> int:
        return self.config.length

    @property
    def dim(self) -> int:
        return self.config.dim

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """texts -> word ids (B, L) int64 on the CPU; longer texts are cut, the end mark stays."""
        ids = torch.full((len(texts), self.length), PAD)
        for row, text in enumerate(texts):
            found = [self.ids.get(word, UNKNOWN) for word in WORD.findall(text.lower())][: self.length - 1]
            ids[row, : len(found) + 1] = torch.tensor([*found, END])
        return ids

    def cut_off(self, text: str) -> str:
        """The words, in lower case, that do not fit; "" if all do."""
        lower = text.lower()
        words = list(WORD.finditer(lower))
        return lower[words[self.length - 1].start() :] if len(words) > self.length - 1 else ""

    def encode(self, ids_BL: Tensor) -> Tensor:
        """ids (B, L) int64 on the model's device -> embeddings (B, L, E)."""
        mask = (ids_BL != PAD)[:, None, None]
        x = self.words(ids_BL) + self.positions
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """texts -> embeddings (B, L, E)."""
        return self.encode(self.tokenize(texts).to(self.positions.device))
