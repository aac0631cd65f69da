"""Files that lost a bit: what becomes of each, as whoever reads the file sees it."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Of each file: a few in the quick tests, and the campaigns that docs/operations.md reports.
COUNTS = [40, pytest.param(500, marks=pytest.mark.slow)]


def flips(whole: bytes, count: int) -> Iterator[bytes]:
    """Copies with one bit changed, each another one."""
    bits = random.Random(0).sample(range(8 * len(whole)), min(count, 8 * len(whole)))
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def campaign(
    path: Path,
    read: Callable[[], Any],
    count: int,
    refusal: type[Exception] | tuple[type[Exception], ...],
    is_remade: Callable[[Any], bool] = lambda _: False,
) -> Counter[str]:
    """How many flips of a file were "refused", by an error that names it; "remade"; "unseen", because what is read of
    it is the same; or "silent".

    read: gives all that is read of the file. is_remade: whether what was read tells that it is to be made again.
    """
    whole, known = path.read_bytes(), read()
    outcomes: Counter[str] = Counter(silent=0)
    for damaged in flips(whole, count):
        path.write_bytes(damaged)
        try:
            found = read()
        except refusal as error:
            assert path.name in str(error) or path.parent.name in str(error)
            outcomes["refused"] += 1
            continue
        outcomes["unseen" if found == known else "remade" if is_remade(found) else "silent"] += 1
    path.write_bytes(whole)
    assert read() == known
    return outcomes
