"""The text encoder of the released checkpoint: the encoder of a T5, in memory only while it is needed.

Shape suffixes: B batch, L positions, E width.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from editar.io.atomic import write_bytes
from editar.io.tensors import copies, fill, map_pickle, map_safetensors, write_safetensors

OFFICIAL_T5 = "google/flan-t5-xl"  # the paper's
REMEMBERED = 64  # texts whose embeddings are kept, about 1 MB each
SETTINGS = ("*.json", "*.model")  # configuration and tokenizer
# In the order in which they are taken; a hub repository holds the same weights several times over.
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "pytorch_model.bin", "pytorch_model-*-of-*.bin")
SHARED = {"encoder.embed_tokens.weight": "shared.weight"}


class T5TextEncoder:
    """The encoder of a T5 (the paper's is google/flan-t5-xl: 2048 wide, 120 positions).

    Padded to the full length, truncated, end mark added; T5 gets its attention mask, and its output at padded
    positions is passed on as it is, as in the released code. Its weights take more memory than the rest of the model:
    on a CPU they are read when a text comes that is not among the last ones, and let go when the call ends; on a GPU,
    and once `together` was called, they stay.
    """

    def __init__(
        self,
        source: str | Path = OFFICIAL_T5,
        *,
        length: int = 120,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """source: a local folder in transformers' format, or a hub id (then fetched, or found in the hub's cache).

        Of its files only the width is read here.
        """
        if find_spec("transformers") is None:
            raise ImportError("the T5 text encoder needs transformers: pip install 'editar-bench[t5]'")
        self.source = str(source)
        self.length = length
        self.dtype = dtype
        self.device = torch.device("cpu")
        try:
            self.folder = Path(source) if Path(source).is_dir() else _from_hub(self.source)
            self.weights = weight_files(self.folder)
            self.dim = int(json.loads((self.folder / "config.json").read_text("utf-8"))["d_model"])
        except (OSError, ValueError, KeyError) as error:
            raise FileNotFoundError(
                f"no T5 text encoder at {self.source!r}: give a folder with config.json, the tokenizer's files and "
                "model.safetensors (for the paper: a copy of google/flan-t5-xl), or make the hub reachable"
            ) from error
        self._model: Any = None
        self._stays = False
        self._remembered: dict[str, Tensor] = {}

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)  # else it asks

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Self:
        """Where and in what arithmetic the next text is encoded."""
        self._model, self._remembered = None, {}
        self.device, self.dtype = torch.device(device), dtype or self.dtype
        self._stays = self.device.type != "cpu"
        return self

    @property
    def nbytes(self) -> int:
        """Bytes that the weights take while texts are encoded."""
        return sum(tensor.numel() for tensor in self._mapped().values()) * self.dtype.itemsize

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """texts -> embeddings (B, L, E) in the encoder's dtype; each text by itself, whatever comes with it."""
        found = {text: self._remembered[text] for text in texts if text in self._remembered}
        if len(found) < len(set(texts)):
            model = self._model or self._load()
            found |= {text: self._encode(model, [text])[0] for text in dict.fromkeys(texts) if text not in found}
            self._model = model if self._stays else None
        self._remembered = dict(list({**self._remembered, **found}.items())[-REMEMBERED:])
        return torch.stack([found[text] for text in texts])

    def together(self, texts: Sequence[str]) -> Tensor:
        """As a call, but all texts in one pass, and the weights stay in memory: for training, which has new texts in
        every batch. A text's embeddings then depend, within the dtype's rounding, on the batch."""
        self._stays = True
        self._model = self._model or self._load()
        return self._encode(self._model, texts)

    def cut_off(self, text: str) -> str:
        """The end of a text that does not fit into the encoder's positions; "" if all of it does."""
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return text[offsets[self.length - 1][0] :].strip() if len(offsets) > self.length - 1 else ""

    def save(self, folder: Path, dtype: torch.dtype) -> None:
        """Write configuration, tokenizer and the encoder's weights as a folder that can be a `source`."""
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in SETTINGS:
            for path in self.folder.glob(pattern):
                if not path.name.endswith(".index.json"):
                    write_bytes(folder / path.name, path.read_bytes())
        tensors = copies(self._mapped, self._mapped(), dtype=dtype)
        write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"}, writer="model")

    @torch.no_grad()
    def _encode(self, model: Any, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(texts), max_length=self.length, padding="max_length", truncation=True, return_tensors="pt"
        ).to(self.device)
        return model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state

    def _load(self) -> Any:
        # Not transformers' from_pretrained: cast from float32 files, it takes the memory of both.
        from transformers import AutoConfig, T5EncoderModel

        config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        return fill(
            lambda: T5EncoderModel(config),
            self._mapped,
            self.folder,
            dtype=self.dtype,
            device=self.device,
            may_lack=SHARED,
        ).requires_grad_(False)

    def _mapped(self) -> dict[str, Tensor]:
        """The encoder's tensors, mapped from its files, which may hold a decoder too."""
        state: dict[str, Tensor] = {}
        for path in self.weights:
            state.update(map_safetensors(path)[0] if path.suffix == ".safetensors" else map_pickle(path)[0])
        return {
            name: tensor
            for name, tensor in state.items()
            if name.startswith(("shared.", "encoder.")) and name not in SHARED
        }


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights of a T5 in transformers' folder format; FileNotFoundError if there are none."""
    for pattern in WEIGHTS:
        if found := sorted(folder.glob(pattern)):
            return found
    raise FileNotFoundError(f"{folder}: no {' or '.join(WEIGHTS)}")


def used_files(folder: Path) -> list[Path]:
    """All files of a T5's folder that are read."""
    settings = [path for pattern in SETTINGS for path in folder.glob(pattern)]
    return sorted(path for path in settings if not path.name.endswith(".index.json")) + weight_files(folder)


def _from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download

    for weights in ("model*.safetensors", "pytorch_model*.bin"):
        try:
            folder = Path(snapshot_download(source, allow_patterns=[*SETTINGS, weights]))
        except Exception as error:  # huggingface_hub has its own kinds of errors, and its HTTP library others
            raise FileNotFoundError(str(error)) from error
        if any(folder.glob(weights)):
            return folder
    raise FileNotFoundError(f"{source}: no weights on the hub")
