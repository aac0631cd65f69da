"""A cache of the tokenizer's tokens: an image that comes round again is not encoded again."""

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from editar.model.vq import VQModel

MOST_CODES = 1 << 16  # that two bytes tell apart


class TokenCache:
    """`tokens.sqlite` in a folder: from the digest of tokenizer and pixels to uint16 tokens, 2 KB for 512 x 512 pixels.

    Content-addressed, so that any run with any data may share it, also at the same time on one machine. Swapped pairs,
    and images that are source in one pair and target in another, are found too.
    """

    def __init__(self, folder: Path, vq: VQModel) -> None:
        if vq.config.codebook_size > MOST_CODES:
            raise ValueError(f"the tokenizer has {vq.config.codebook_size} codes; the cache holds up to {MOST_CODES}")
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = digest(vq)
        self.database = sqlite3.connect(folder / "tokens.sqlite", timeout=60, isolation_level=None)
        self.database.execute("PRAGMA journal_mode = WAL")  # readers and a writer side by side; survives kills
        self.database.execute("PRAGMA synchronous = NORMAL")
        self.database.execute("CREATE TABLE IF NOT EXISTS tokens (key BLOB PRIMARY KEY, tokens BLOB) WITHOUT ROWID")

    def __call__(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """images uint8 (B, 3, side, side) on the CPU -> tokens int64 (B, N); `encode` makes the unknown ones."""
        keys = [self._key(image) for image in images]
        known = {key: tokens for key in keys if (tokens := self._find(key)) is not None}
        if missing := [i for i, key in enumerate(keys) if key not in known and keys.index(key) == i]:
            made = encode(images[missing]).cpu().numpy().astype(np.uint16)
            rows = [(keys[i], tokens.tobytes()) for i, tokens in zip(missing, made, strict=True)]
            self.database.executemany("INSERT OR IGNORE INTO tokens VALUES (?, ?)", rows)
            known.update(rows)
        tokens_BN = np.stack([np.frombuffer(known[key], np.uint16) for key in keys])
        return torch.from_numpy(tokens_BN.astype(np.int64))

    def _key(self, image: Tensor) -> bytes:
        return hashlib.sha256(self.tokenizer + image.contiguous().numpy().tobytes()).digest()

    def _find(self, key: bytes) -> bytes | None:
        row = self.database.execute("SELECT tokens FROM tokens WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None


def digest(module: torch.nn.Module) -> bytes:
    """sha256 of a network's weights."""
    total = hashlib.sha256()
    for name, value in module.state_dict().items():
        total.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return total.digest()
