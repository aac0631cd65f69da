"""Pairs listed in jsonl files, one a line, beside the folder of images that they name: SEED's, and one's own."""

import hashlib
import json
import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from editar.images import SHOWN
from editar.io.image_paths import ImagePaths, PathError, is_leftover, leftovers_note
from editar.training.data.rows import KINDS, Kind, Row, RowFault, faulty_row, good_row

# Enough parts for the workers of any machine, of few enough lines that finding the place again costs nothing.
MOST_LINES, WANTED_PARTS = 1000, 64
MAX_LINE = 2**20  # bytes; a pair of names and an instruction have hundreds


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Some consecutive lines of a file. first: the number of the first one, from 1; offset: where it begins, in bytes.

    images: the folder that the images' names are relative to. roots: folders that links there may lead into.
    """

    kind: str
    file: str
    images: str
    roots: tuple[str, ...]
    first: int
    offset: int
    count: int


def find_lines(kind: str, folder: Path, images: Path | None = None, follow_links: Path | None = None) -> list[Lines]:
    """The lines of all jsonl files of a data set in `folder`, in parts. Raises ValueError where there are none.

    images: what the images' names are relative to; the data set's own folder of images if None. follow_links: a folder
    that links among them may lead into, besides `folder` and `images` (see `ImagePaths`).
    """
    layout = KINDS[kind]
    place = folder / layout.lines
    files = sorted(place.glob("*.jsonl"))
    if leftovers := [file for file in files if is_leftover(file)]:
        print(f"note: {place}: {leftovers_note(leftovers)}", file=sys.stderr)
    images = images or folder / layout.images
    roots = [root for root in (folder, images, follow_links) if root]
    parts = [part for file in files if not is_leftover(file) for part in _parts(kind, file, images, roots)]
    if not parts:
        names = ", ".join(layout.columns)
        raise ValueError(f"{place}: there are no *.jsonl files with lines in it; each line is an object with {names}")
    return parts


def _parts(kind: str, file: Path, images: Path, roots: Sequence[Path]) -> list[Lines]:
    starts, offset = array("Q"), 0
    with open(file, "rb") as lines:
        while length := _skip(lines):
            starts.append(offset)
            offset += length
    step = min(MOST_LINES, max(1, len(starts) // WANTED_PARTS))
    return [
        Lines(
            kind=kind,
            file=str(file),
            images=str(images),
            roots=tuple(map(str, roots)),
            first=index + 1,
            offset=starts[index],
            count=min(step, len(starts) - index),
        )
        for index in range(0, len(starts), step)
    ]


def _skip(lines: BinaryIO) -> int:
    """The length of the next line, 0 at the end of the file; memory stays that of MAX_LINE bytes."""
    length = 0
    while part := lines.readline(MAX_LINE):
        length += len(part)
        if part.endswith(b"\n"):
            break
    return length


def sizes_digest(kind: str, file: Path, images: Path) -> str:
    """SHA-256 over the sizes of the images that a file's lines name: what tells replaced ones without reading them."""
    layout = KINDS[kind]
    total = hashlib.sha256()
    with open(file, "rb") as lines:
        while line := lines.readline(MAX_LINE):
            try:
                values = json.loads(line)
                sizes = [_size(images, values[name]) for name in (layout.source, layout.target) if name]
            except (ValueError, RecursionError, KeyError, TypeError):  # a faulty line, which training counts
                continue
            total.update(f"{sizes}".encode())
    return total.hexdigest()


def _size(images: Path, name: str) -> int | None:
    """In bytes; None for a file that isn't there under this very name."""
    try:
        return os.stat(os.path.join(images, name.replace("\\", "/"))).st_size
    except (OSError, ValueError, AttributeError):
        return None


def read_lines(shards: list[Lines]) -> Iterator[Row]:
    """The rows of some parts; a line that says no pair is a faulty row, a blank one is none."""
    for part in shards:
        paths = ImagePaths(Path(part.images), map(Path, part.roots))
        with open(part.file, "rb") as file:
            file.seek(part.offset)
            for number in range(part.first, part.first + part.count):
                line = file.readline(MAX_LINE)
                origin = f"{part.file} line {number}"
                if len(line) == MAX_LINE and not line.endswith(b"\n"):
                    _skip(file)
                    yield faulty_row(part.kind, origin, f"it has more than {MAX_LINE} bytes")
                    continue
                if not line.strip():
                    continue
                try:
                    yield _row(part, paths, origin, line)
                except RowFault as fault:
                    yield faulty_row(part.kind, origin, str(fault))


def _row(part: Lines, paths: ImagePaths, origin: str, line: bytes) -> Row:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, or nested too deep
        raise RowFault(f"it is no JSON: {error}") from error
    kind: Kind = KINDS[part.kind]
    for name in kind.columns:
        value = values.get(name) if isinstance(values, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise RowFault(f"it has no text under {name!r}; it must have {', '.join(kind.columns)}")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:  # JSON can hold half of a surrogate pair
            raise RowFault(f"{name!r} is no valid Unicode text") from error
    cells = []
    for name in filter(None, (kind.source, kind.target)):
        try:
            cells.append({"path": str(paths.find(values[name]))})
        except PathError as error:
            remedy = f"give a path below {part.images} (setting images)"
            if error.link:
                remedy = f'if you trust it, add follow_links = "{error.link}" to this source'
            raise RowFault(f"{name!r} is {values[name][:SHOWN]!r}: {error}; {remedy}") from error
    source, target = cells
    return good_row(part.kind, origin, source, target, values[kind.text])
