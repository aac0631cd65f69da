"""Sizes and settings of the model: frozen dataclasses that check themselves on construction."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

SEEDS = 2**63  # a seed is a whole number from 0 up to this
MOST = 2**20  # of any size: settings are read from files, and an absurd one would be built for ever
MOST_LAYERS = 1000
MOST_WINDOW = 64  # places of a pass
Guess = Literal["source", "above", "jacobi"]
GUESSES: tuple[Guess, ...] = get_args(Guess)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_sizes(config: object, *names: str, most: int = MOST) -> None:
    for name in names:
        value = getattr(config, name)
        _require(
            type(value) is int and 1 <= value <= most,
            f"{type(config).__name__}.{name} is {value}; it must be a whole number, at least 1 and at most {most}",
        )


def require_seed(seed: int, name: str = "seed", end: int = SEEDS) -> None:
    """Raise ValueError for a seed that is not from 0 to end - 1."""
    _require(0 <= seed < end, f"{name} is {seed}; it must be from 0 to {end - 1}")


@dataclass(frozen=True, kw_only=True)
class VQConfig:
    """The VQ tokenizer. The defaults are VQ-16 of LlamaGen (`vq_ds16_t2i.pt`): 16x16 pixels a token.

    channels x multipliers are the widths of the levels, from the finest to the deepest; every level but the
    deepest halves the image once.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    latent_channels: int = 256
    codebook_size: int = 16384
    codebook_dim: int = 8
    norm_groups: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(self.multipliers))  # a list after a JSON round trip
        _require_sizes(self, "channels", "latent_channels", "codebook_size", "codebook_dim", "norm_groups")
        _require_sizes(self, "res_blocks", most=MOST_LAYERS)
        _require(
            1 <= len(self.multipliers) <= 16 and all(type(each) is int for each in self.multipliers),
            f"VQConfig.multipliers is {self.multipliers}; give one whole number per level, of 16 at most",
        )
        for multiplier in self.multipliers:
            width = self.channels * multiplier
            _require(
                width >= 1 and width % self.norm_groups == 0,
                f"VQConfig: a level of {width} channels can't be split into norm_groups={self.norm_groups}; "
                "change channels, multipliers or norm_groups",
            )

    @property
    def downsampling(self) -> int:
        """Pixels per token along one side."""
        return 2 ** (len(self.multipliers) - 1)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The autoregressive transformer: LlamaGen's GPT with an image prefix.

    grid: tokens along one side of the (square) image; text_length, text_dim: shape of the text encoder's output.
    trainable_null: the two null embeddings of guidance are frozen random buffers in the released model (False);
    True makes them parameters, which the paper does not do.
    initial_std: of the linear layers and embeddings before training; LlamaGen's, made for widths from 768 up.
    """

    layers: int
    heads: int
    dim: int
    vocab_size: int = 16384
    grid: int = 32
    text_length: int = 120
    text_dim: int = 2048
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    token_dropout: float = 0.1
    residual_dropout: float = 0.1
    ffn_dropout: float = 0.1
    distillation_dim: int = 768
    trainable_null: bool = False
    initial_std: float = 0.02

    def __post_init__(self) -> None:
        _require_sizes(self, "heads", "dim", "vocab_size", "text_length", "text_dim", "distillation_dim")
        _require_sizes(self, "layers", "grid", most=MOST_LAYERS)
        _require(
            self.dim % (4 * self.heads) == 0,
            f"TransformerConfig: dim={self.dim} with heads={self.heads}: the head size must be a whole multiple of 4 "
            "(two axes of rotated pairs)",
        )
        _require(self.grid % 2 == 0, f"TransformerConfig.grid is {self.grid}; it must be even (distillation halves it)")
        for name in ("rope_base", "norm_eps", "initial_std"):
            value = getattr(self, name)
            _require(0.0 < value < math.inf, f"TransformerConfig.{name} is {value}; it must be above 0 and finite")
        for name in ("token_dropout", "residual_dropout", "ffn_dropout"):
            value = getattr(self, name)
            _require(0.0 <= value < 1.0, f"TransformerConfig.{name} is {value}; it must be in [0, 1)")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def ffn_dim(self) -> int:
        """Two thirds of 4 x dim, rounded up to a multiple of 256 (LlamaGen)."""
        return -(-int(2 * 4 * self.dim / 3) // 256) * 256

    @property
    def image_tokens(self) -> int:
        return self.grid * self.grid

    def cached_numbers(self, rows: int) -> int:
        """What decoding one image keeps: keys and values of the image prefix, once, and of as many slots per row."""
        return 2 * self.layers * self.dim * self.image_tokens * (1 + rows)


SIZES: dict[str, TransformerConfig] = {  # LlamaGen's sizes; the paper's model is XL
    "B": TransformerConfig(layers=12, heads=12, dim=768),
    "L": TransformerConfig(layers=24, heads=16, dim=1024),
    "XL": TransformerConfig(layers=36, heads=20, dim=1280),
    "XXL": TransformerConfig(layers=48, heads=24, dim=1536),
    "3B": TransformerConfig(layers=24, heads=32, dim=3200),
}


@dataclass(frozen=True, kw_only=True)
class WordTextConfig:
    """The miniature's own text encoder: a word vocabulary and a small bidirectional transformer."""

    vocabulary: tuple[str, ...]
    length: int = 40
    dim: int = 256
    layers: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", tuple(self.vocabulary))
        _require(
            all(isinstance(word, str) for word in self.vocabulary), "WordTextConfig.vocabulary holds what is no word"
        )
        _require(len(set(self.vocabulary)) == len(self.vocabulary), "WordTextConfig.vocabulary has a word twice")
        for word in self.vocabulary:
            _require(
                word == word.lower() and len(word.split()) == 1,
                f"WordTextConfig.vocabulary: {word!r} is not one lower-case word",
            )
        _require_sizes(self, "length", "dim", "heads")
        _require_sizes(self, "layers", most=MOST_LAYERS)
        _require(self.dim % self.heads == 0, f"WordTextConfig: dim={self.dim} is not a multiple of heads={self.heads}")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How target tokens are drawn. The defaults are the published ones.

    guidance: eta of the paper's equation 5, active only above 1; temperature 0 or top_k 1 is greedy decoding;
    top_k 0 and top_p 1 switch these filters off.
    """

    guidance: float = 3.0
    temperature: float = 1.0
    top_k: int = 1000
    top_p: float = 1.0

    def __post_init__(self) -> None:
        for name, of in (("guidance", Real), ("temperature", Real), ("top_k", Integral), ("top_p", Real)):
            value = getattr(self, name)
            kind = "a whole number" if of is Integral else "a number"
            _require(isinstance(value, of) and not isinstance(value, bool), f"{name} is {value!r}; it must be {kind}")
        _require(0 <= self.guidance < math.inf, f"guidance is {self.guidance}; it must be finite, 0 or more")
        _require(0 <= self.temperature < math.inf, f"temperature is {self.temperature}; it must be finite, 0 or more")
        _require(self.top_k >= 0, f"top_k is {self.top_k}; it must be 0 (off) or more")
        _require(0 < self.top_p <= 1, f"top_p is {self.top_p}; it must be in (0, 1] (1 is off)")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1

    @property
    def guided(self) -> bool:
        return self.guidance > 1


@dataclass(frozen=True, kw_only=True)
class DraftConfig:
    """How many tokens a pass of the transformer takes, and how those that are not drawn yet are guessed.

    No setting moves a token, only the number of passes (see `editar.decoding.drafts`): on a CPU with a compiler to the
    last bit, elsewhere up to the rounding of products of other sizes. window: 1 is one token after the other. guess:
    "source" takes the condition image's token at the same place, "above" the token one row up, "jacobi" nothing; what
    an earlier pass drew there comes before any of them.
    """

    window: int = 8
    guess: Guess = "source"

    def __post_init__(self) -> None:
        _require_sizes(self, "window", most=MOST_WINDOW)
        _require(self.guess in GUESSES, f"guess is {self.guess!r}; choose one of {', '.join(GUESSES)}")


DRAFTS = DraftConfig()  # docs/speed.md tells how it was chosen
