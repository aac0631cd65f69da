"""A cache of the tokenizer's tokens: an image that comes round again is not encoded again."""

import hashlib
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from editar.io.atomic import WriteError
from editar.model.vq import VQModel

MOST_CODES = 1 << 16  # that two bytes tell apart
CHECKSUM = 8  # bytes behind the tokens of an image

T = TypeVar("T")


class TokenCache:
    """`tokens.sqlite` in a folder: from the digest of tokenizer and pixels to uint16 tokens, 2 KB for 512 x 512 pixels.
    What is damaged is made again.

    Content-addressed, so that any run with any data may share it, also at the same time on one machine. Swapped pairs,
    and images that are source in one pair and target in another, are found too.
    """

    def __init__(self, folder: Path, vq: VQModel) -> None:
        if vq.config.codebook_size > MOST_CODES:
            raise ValueError(f"the tokenizer has {vq.config.codebook_size} codes; the cache holds up to {MOST_CODES}")
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = digest(vq)
        self.path = folder / "tokens.sqlite"
        self._made_again(self._open)

    def __call__(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """images uint8 (B, 3, side, side) on the CPU -> tokens int64 (B, N); `encode` makes the unknown ones. Raises
        WriteError."""
        return self._made_again(lambda: self._tokens(images, encode))

    def _open(self) -> None:
        self.database = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        self.database.text_factory = bytes  # damage may make text of tokens, of any bytes
        self.database.execute("PRAGMA journal_mode = WAL")  # readers and a writer side by side; survives kills
        self.database.execute("PRAGMA synchronous = NORMAL")
        self.database.execute("CREATE TABLE IF NOT EXISTS tokens (key BLOB PRIMARY KEY, tokens BLOB) WITHOUT ROWID")

    def _made_again(self, work: Callable[[], T]) -> T:
        """What `work` gives, with an empty database where this one is damaged."""
        try:
            return work()
        except sqlite3.OperationalError as error:  # no room, no permission, locked
            raise WriteError(self.path, OSError(str(error))) from error
        except sqlite3.DatabaseError as error:
            print(f"note: {self.path} was damaged ({error}), and is made again", file=sys.stderr)
            self.database.close()
            for end in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
            self._open()
            return work()

    def _tokens(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        keys = [self._key(image) for image in images]
        known = {key: tokens for key in keys if (tokens := self._find(key)) is not None}
        if missing := [i for i, key in enumerate(keys) if key not in known and keys.index(key) == i]:
            made = encode(images[missing]).cpu().numpy().astype(np.uint16)
            known.update((keys[i], tokens.tobytes()) for i, tokens in zip(missing, made, strict=True))
            rows = [(keys[i], known[keys[i]] + _checksum(keys[i], known[keys[i]])) for i in missing]
            self.database.executemany("INSERT OR REPLACE INTO tokens VALUES (?, ?)", rows)
        tokens_BN = np.stack([np.frombuffer(known[key], np.uint16) for key in keys])
        return torch.from_numpy(tokens_BN.astype(np.int64))

    def _key(self, image: Tensor) -> bytes:
        return hashlib.sha256(self.tokenizer + image.contiguous().numpy().tobytes()).digest()

    def _find(self, key: bytes) -> bytes | None:
        row = self.database.execute("SELECT tokens FROM tokens WHERE key = ?", (key,)).fetchone()
        known = row[0] if row and isinstance(row[0], bytes) else b""  # damage may make a number of it
        tokens, checksum = known[:-CHECKSUM], known[-CHECKSUM:]
        return tokens if checksum == _checksum(key, tokens) else None


def _checksum(key: bytes, tokens: bytes) -> bytes:
    return hashlib.sha256(key + tokens).digest()[:CHECKSUM]


def digest(module: torch.nn.Module) -> bytes:
    """sha256 of a network's weights."""
    total = hashlib.sha256()
    for name, value in module.state_dict().items():
        total.update(name.encode() + value.cpu().flatten().view(torch.uint8).numpy().tobytes())
    return total.digest()
