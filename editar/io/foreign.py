"""What lies in the place of a file that was not fetched as it should have been."""

import json
import zipfile
from pathlib import Path

_HEAD = 1024  # bytes
_LFS = b"version https://git-lfs.github.com/spec/"
_ZIP = b"PK\x03\x04"  # how a .pt of PyTorch begins; its table of contents is at the end
_LENGTH = 8  # bytes: safetensors say first how long their header is


def what_it_is(path: Path) -> str | None:
    """Why a file of weights or data is not what its name says, and what to do; None where nothing of this is known.

    Knows pointers of Git LFS, pages and error messages of servers, and files that are empty or cut off.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "it is empty; fetch it again"
    if head.startswith(_LFS):
        return "it is a pointer of Git LFS and not the file itself; run `git lfs pull` where it was cloned"
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, such as one that asks to log in or to confirm; fetch the file itself"
    if text.startswith((b"<?xml", b'{"error', b'{"message')):
        return f"it is a server's message and not the file: {head[:80]!r}; fetch it again"
    if head.startswith(_ZIP) and not zipfile.is_zipfile(path):
        return f"it is cut off after {path.stat().st_size} bytes; fetch it again"
    return _cut_off(path, head) if path.suffix == ".safetensors" else None


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
    return f"it is cut off: it has {size} of {end} bytes; fetch it again" if size < end else None
