"""What lies in the place of a file that was not fetched as it should have been."""

import json
import zipfile
from pathlib import Path

_HEAD = 1024  # bytes
_LFS = b"version https://git-lfs.github.com/spec/"
_ZIP = b"PK\x03\x04"  # how a .pt of PyTorch begins; its table of contents is at the end
_LENGTH = 8  # bytes: safetensors say first how long their header is


def what_it_is(path: Path) -> str | None:
    """Why a file of weights or data is not what its name says; None where nothing of this is known.

    Knows what `what_begins` knows, and files that are cut off.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if what := what_begins(head):
        return what
    if head.startswith(_ZIP) and not zipfile.is_zipfile(path):
        return f"it is cut off after {path.stat().st_size} bytes"
    return _cut_off(path, head) if path.suffix == ".safetensors" else None


def what_begins(head: bytes) -> str | None:
    """As `what_it_is`, of a file's first bytes: pointers of Git LFS, pages and messages of servers, nothing at all."""
    head = head[:_HEAD]
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "it is empty, as a download that is cut off"
    if head.startswith(_LFS):
        return "it is a pointer of Git LFS and not the file itself, which `git lfs pull` gets"
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, such as one that asks to log in or to confirm, and not the file itself"
    if text.startswith((b"<?xml", b'{"error', b'{"message')):
        return f"it is a server's message and not the file itself: {head[:80]!r}"
    return None


def _cut_off(path: Path, head: bytes) -> str | None:
    """Of a safetensors file: whether it is shorter than its header says."""
    length, size = int.from_bytes(head[:_LENGTH], "little"), path.stat().st_size
    end = _LENGTH + length
    if end <= size:
        try:
            with path.open("rb") as file:
                file.seek(_LENGTH)
                header = json.loads(file.read(length))
            end += max(
                (tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0
            )
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return None  # damaged in another way
    elif head[_LENGTH : _LENGTH + 1] != b"{":
        return None
    return f"it is cut off: it has {size} of {end} bytes" if size < end else None
