"""What files from elsewhere may hold: damaged copies of whole ones, any JSON, names that lead out of a folder."""

import io
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

NAMES = st.sampled_from([
    "a.png", "b.jpg", "damaged.png", "folder/a.png", "link.png", "linked/secret.png", "loop.png", "absent.png",
    "../outside/secret.png", "folder/../../outside/secret.png", "{outside}/secret.png", "..\\outside\\secret.png",
    "C:\\secret.png", "\\\\server\\share.png", "/etc/hostname", "nul\0.png", "x" * 300 + ".png", "", ".", "..",
    "folder", "\ud800.png",
])  # fmt: skip
LINKS = {"link.png": "../outside/secret.png", "linked": "../outside", "loop.png": "loop.png"}
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | NAMES
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
DEEP = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"\xff\xfe", b"\xef\xbb\xbf{}", b""])


@dataclass(frozen=True, kw_only=True)
class Case:
    """files, links: what lies in the reader's folder. more: what the reader is asked besides."""

    files: Mapping[str, bytes]
    links: Mapping[str, str] = field(default_factory=dict)
    more: Any = None


def encoded(kind: str = "PNG", size: tuple[int, int] = (16, 16), mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG file of some bytes whose header says side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A copy with some bytes overwritten, cut off or appended."""
    content = bytearray(whole)
    for place, part in draw(
        st.lists(st.tuples(st.integers(0, max(0, len(whole) - 1)), st.binary(min_size=1, max_size=8)), max_size=4)
    ):
        content[place : place + len(part)] = part
    end = draw(st.none() | st.integers(0, len(content)))
    return bytes(content[:end]) + draw(st.just(b"") | st.binary(max_size=8))


FORMATS = {kind: encoded(kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM")}
PNG = FORMATS["PNG"]
IMAGES = (
    st.just(PNG)
    | st.sampled_from([encoded(mode="L"), encoded(mode="P"), encoded(mode="RGBA"), encoded(size=(16, 8))])
    | st.sampled_from([bomb(20_000), bomb(2**31 - 1), b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
    | st.sampled_from(list(FORMATS.values())).flatmap(damaged)
    | st.binary(max_size=40)
)


def as_json(value: object) -> bytes:
    return json.dumps(value).encode("utf-8")


def changed(whole: Mapping[str, Any], change: st.SearchStrategy[Any] = JSON) -> st.SearchStrategy[dict[str, Any]]:
    """The mapping with some values that may be anything, or without some."""
    names = st.sampled_from(sorted(whole))
    return st.tuples(st.dictionaries(names, change, max_size=3), st.sets(names, max_size=1)).map(
        lambda both: {name: value for name, value in (whole | both[0]).items() if name not in both[1]}
    )


def text_file(whole: bytes, made: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Made up, or damaged, or what no parser likes."""
    return made | made | damaged(whole) | DEEP


def refused_by_name(error: Exception, root: Path) -> None:
    """The documented error says which file, and what to do: not only what went wrong."""
    assert str(root) in str(error), error
