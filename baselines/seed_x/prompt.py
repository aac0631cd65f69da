"""SEED-X's prompt and its tokens: LLaMA's pieces, and above them those that stand for images.

Each piece of text between two added tokens is encoded by itself, without the blanks at its ends and with a `▁` of its
own, as transformers 4.30.2 did, which the published prompts went through. Later versions give other tokens for the same
folder.
"""

from dataclasses import dataclass
from pathlib import Path

from baselines.llama import read_json

IMAGE_TOKENS = 64
# Of a view of the image, and of the whole.
PATCH, PATCH_END, IMAGE, IMAGE_END = "<patch>", "</patch>", "<img>", "</img>"
FILES = ("tokenizer.model", "added_tokens.json")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """ids: all tokens. views: where the tokens of the two views begin, in whose place their features are read."""

    ids: tuple[int, ...]
    views: tuple[int, int]


class Tokens:
    """Of a folder with FILES. Raises ValueError, naming the file, where they are not SEED-X's."""

    def __init__(self, folder: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        model, added = (folder / name for name in FILES)
        try:
            self._pieces = SentencePieceProcessor(model_file=str(model))
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{model}: no readable SentencePiece model: {error}") from error
        self._added = _read_added(added)
        self.image = tuple(self._added[f"<img_{number:05d}>"] for number in range(IMAGE_TOKENS))
        self.begin, self.end = self._added[IMAGE], self._added[IMAGE_END]
        self.start_of_text, self.end_of_text = self._pieces.bos_id(), self._pieces.eos_id()
        if min(self._added.values()) != self._pieces.get_piece_size():
            raise ValueError(
                f"{added}: its tokens begin at {min(self._added.values())}, and {model.name} has "
                f"{self._pieces.get_piece_size()}; get both files from one folder"
            )

    @property
    def count(self) -> int:
        """How many tokens there are, which the language model has to have embeddings of."""
        return max(self._added.values()) + 1

    def prompt(self, instruction: str) -> Prompt:
        """Asks for an edit of an image that is seen twice, as its only patch and as a whole."""
        start = [self.start_of_text, *self._pieces.encode("[INST]"), self._added[PATCH]]
        between = [self._added[PATCH_END], self.begin]
        end = [self.end, *self._pieces.encode(f"{instruction} [/INST]\n".lstrip())]
        ids = (*start, *self.image, *between, *self.image, *end)
        return Prompt(ids=ids, views=(len(start), len(start) + IMAGE_TOKENS + len(between)))

    def text(self, ids: list[int]) -> str:
        """What tokens say, those that stand for images left out."""
        return self._pieces.decode([each for each in ids if each < self._pieces.get_piece_size()]).strip()


def _read_added(path: Path) -> dict[str, int]:
    content = read_json(path)
    needed = (PATCH, PATCH_END, IMAGE, IMAGE_END, *(f"<img_{number:05d}>" for number in range(IMAGE_TOKENS)))
    if not all(type(each) is int for each in content.values()):
        raise ValueError(f"{path}: must give each added token its number")
    if absent := [name for name in needed if name not in content]:
        raise ValueError(f"{path} has no token {absent[0]}; take the file from the tokenizer's folder of SEED-X")
    if len(set(content.values())) < len(content):
        raise ValueError(f"{path} gives two tokens the same number; get the file again")
    return content
