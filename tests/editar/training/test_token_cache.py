"""The cache of tokens, damaged: what is wrong in it is made again, and said."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from editar.io.atomic import WriteError
from editar.model.files import Parts
from editar.training.token_cache import TokenCache
from tests.flips import COUNTS, campaign
from tests.limits import files_up_to

IMAGES = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def encode(small_parts: Parts) -> Callable[[Tensor], Tensor]:
    return lambda images: small_parts.vq.encode(images.float() / 127.5 - 1)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_cache_is_made_again(
    small_parts: Parts, encode: Callable[[Tensor], Tensor], tmp_path: Path, kept: float
) -> None:
    cache = TokenCache(tmp_path, small_parts.vq)
    expected = cache(IMAGES, encode)
    cache.database.close()
    path = tmp_path / "tokens.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    for _ in range(2):
        assert torch.equal(TokenCache(tmp_path, small_parts.vq)(IMAGES, encode), expected)
    path.write_bytes(b"no database")
    assert torch.equal(TokenCache(tmp_path, small_parts.vq)(IMAGES, encode), expected)


@pytest.mark.parametrize("count", COUNTS)
def test_a_bit_that_flips_changes_no_token(
    small_parts: Parts, encode: Callable[[Tensor], Tensor], tmp_path: Path, count: int
) -> None:
    def read() -> list[list[int]]:
        cache = TokenCache(tmp_path, small_parts.vq)
        tokens = cache(IMAGES, encode).tolist()
        cache.database.close()
        return tokens

    read()
    outcomes = campaign(tmp_path / "tokens.sqlite", read, count, WriteError)
    assert outcomes["silent"] == outcomes["refused"] == 0


def test_a_full_disk_names_the_cache(small_parts: Parts, encode: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, small_parts.vq)
    with files_up_to(5000), pytest.raises(WriteError, match=r"tokens\.sqlite"):
        for seed in range(50):
            cache(IMAGES.roll(seed, -1), encode)
