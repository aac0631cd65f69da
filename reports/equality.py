"""Whether a rendered file is the one that it was, apart from what another processor's arithmetic may change.

Text has to be equal letter by letter, its numbers within RELATIVE: sums differ in their last digits from processor to
processor. Pages of a PDF are compared as text, coordinates within POINTS; of a PNG at most PIXELS of the pixels may
differ by more than SHADES of 255.
"""

import re
import zlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

RELATIVE, SMALLEST = 2e-9, 1e-12
POINTS = 0.01
PIXELS, SHADES = 0.001, 8
SHOWN = 3  # lines of a file

_NUMBER = re.compile(r"([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")
_STREAM = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL)


def file_differences(committed: Path, rendered: Path) -> list[str]:
    """What differs, for people to read; empty for equal files. Both exist."""
    old, new = committed.read_bytes(), rendered.read_bytes()
    if old == new:
        return []
    if committed.suffix == ".png":
        return _picture_differences(committed, rendered)
    if committed.suffix == ".pdf":
        return ["the drawing differs"] if any(_line_differences(_pages(old), _pages(new), 0.0, POINTS)) else []
    lines = list(_line_differences(old.decode(), new.decode(), RELATIVE, SMALLEST))
    more = [f"and {len(lines) - SHOWN} more lines"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more


def _line_differences(old: str, new: str, relative: float, absolute: float) -> Iterator[str]:
    for number, (before, after) in enumerate(zip_longest(old.splitlines(), new.splitlines()), start=1):
        if before == after:
            continue
        if before is None or after is None:
            yield f"line {number}: {'only committed' if after is None else 'not committed'}: {_short(before or after)}"
            continue
        parts = list(zip_longest(_NUMBER.split(before), _NUMBER.split(after), fillvalue=""))
        if bad := [pair for i, pair in enumerate(parts) if not _equal(*pair, i % 2 == 1, relative, absolute)]:
            changes = ", ".join(f"{a or 'nothing'} -> {b or 'nothing'}" for a, b in bad[:SHOWN])
            yield f"line {number} ({_short(before)}): {changes}"


def _equal(old: str, new: str, numbers: bool, relative: float, absolute: float) -> bool:
    if old == new or not (numbers and old and new):
        return old == new
    a, b = float(old), float(new)
    return abs(a - b) <= max(absolute, relative * max(abs(a), abs(b)))


def _short(line: str) -> str:
    return line if len(line) <= 60 else f"{line[:60]}..."


def _pages(data: bytes) -> str:
    """The streams of a PDF; where they begin in the file, and how long they are, says nothing of the drawing."""
    streams = []
    for stream in _STREAM.findall(data):
        try:
            streams.append(zlib.decompress(stream))
        except zlib.error:
            streams.append(stream)
    return b"\n".join(streams).decode("latin-1")


def _picture_differences(committed: Path, rendered: Path) -> list[str]:
    with Image.open(committed) as old, Image.open(rendered) as new:
        if old.size != new.size:
            return [f"{old.width}x{old.height} pixels -> {new.width}x{new.height}"]
        first, second = (np.asarray(each.convert("RGB"), dtype=np.int16) for each in (old, new))
    share = float((np.abs(first - second).max(axis=2) > SHADES).mean())
    return [f"{share:.2%} of the pixels differ"] if share > PIXELS else []
