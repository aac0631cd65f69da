"""The tokens that MGIE's language model reads: LLaVA's prompt around instruction and image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Encoding, Tokenizer

from editar.io.tensors import CheckpointError

# The template "vicuna_v1_1" of LLaVA's conversations, around the question of apple/ml-mgie's demo.ipynb.
PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: what will this image be like if '{instruction}'\n"
    "{image} ASSISTANT:"
)
PATCH, START, END = "<im_patch>", "<im_start>", "<im_end>"
IMAGES = tuple(f"[IMG{number}]" for number in range(8))  # what the edited image is made of
ADDED = (PATCH, START, END, *IMAGES)  # LLaVA's and MGIE's, in the order in which they were added


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """The ids of ADDED: patches of the image that is read, what stands before and behind them, and [IMG0] to [IMG7]."""

    patch: int
    start: int
    end: int
    images: tuple[int, ...]

    @classmethod
    def last_of(cls, vocabulary: int) -> "SpecialTokens":
        """They were added to the `vocabulary - len(ADDED)` tokens of LLaMA."""
        patch, start, end, *images = range(vocabulary - len(ADDED), vocabulary)
        return cls(patch=patch, start=start, end=end, images=tuple(images))


class Prompter:
    """The tokenizer of a folder like LLaVA-7B-v1, from its tokenizer.json alone.

    The ids are those that transformers' fast tokenizer of 4.30.2 gives, as in the published demo. transformers 5 drops
    the lone "▁" between <im_end> and the blank behind it, its old slow tokenizer the newline before <im_start> too; the
    file alone takes <im_start> for letters. vocabulary: rows of the model's embeddings. Raises CheckpointError for a
    file of other ids.
    """

    def __init__(self, path: Path, vocabulary: int) -> None:
        self.path, self.special = path, SpecialTokens.last_of(vocabulary)
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more special
            raise CheckpointError(f"{path}: not a readable tokenizer: {error}") from error
        self.tokenizer.no_truncation()  # which the file may ask for, and transformers does not heed either
        self.tokenizer.no_padding()
        self.tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ADDED])
        ids = [self.tokenizer.token_to_id(token) for token in ADDED]
        wanted = [self.special.patch, self.special.start, self.special.end, *self.special.images]
        if self.tokenizer.get_vocab_size() != vocabulary or ids != wanted:
            raise CheckpointError(
                f"{path}: it has {self.tokenizer.get_vocab_size()} tokens, of which {', '.join(ADDED)} are {ids}; the "
                f"model's are {vocabulary}, and these the last of them. Use the folder's files as they were published"
            )
        self._check_pieces()

    def prompt(self, instruction: str, patches: int) -> list[int]:
        """The tokens before the answer. The instruction is put in as it is, quotes and all."""
        return self._encode(instruction, patches).ids

    def text(self, tokens: Sequence[int]) -> str:
        """Without special tokens, which the library skips only where they are not stored as normalized."""
        special = {token for token, added in self.tokenizer.get_added_tokens_decoder().items() if added.special}
        return self.tokenizer.decode([token for token in tokens if token not in special]).strip()

    def _encode(self, instruction: str, patches: int) -> Encoding:
        image = f"{START}{PATCH * patches}{END}"
        return self.tokenizer.encode(PROMPT.format(instruction=instruction, image=image))

    def _check_pieces(self) -> None:
        """Whether special tokens are cut out as in the published demo."""
        pieces = self._encode("make it red", 1).tokens
        at = pieces.index(PATCH) if PATCH in pieces else 0
        found, wanted = [pieces[0], *pieces[at - 2 : at + 3]], ["<s>", "<0x0A>", START, PATCH, END, "▁"]
        if found != wanted:
            raise CheckpointError(
                f"{self.path}: it cuts the prompt into {found[0]} ... {' '.join(found[1:])}, and not into {wanted[0]} "
                f"... {' '.join(wanted[1:])}. Use the folder's tokenizer.json as it was published"
            )
