"""Pairs listed in jsonl files, one a line, beside the folder of images that they name: SEED's, and one's own."""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from editar.training.data.rows import KINDS, Kind, Row, RowFault, faulty_row, good_row

# Enough parts for the workers of any machine, of few enough lines that finding the place again costs nothing.
MOST_LINES, WANTED_PARTS = 1000, 64


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Some consecutive lines of a file. first: the number of the first one, from 1; offset: where it begins, in bytes.

    images: the folder that the images' names are relative to.
    """

    kind: str
    file: str
    images: str
    first: int
    offset: int
    count: int


def find_lines(kind: str, folder: Path, images: Path | None = None) -> list[Lines]:
    """The lines of all jsonl files of a data set in `folder`, in parts. Raises ValueError where there are none.

    images: what the images' names are relative to; the data set's own folder of images if None.
    """
    layout = KINDS[kind]
    place = folder / layout.lines
    parts = [
        part for file in sorted(place.glob("*.jsonl")) for part in _parts(kind, file, images or folder / layout.images)
    ]
    if not parts:
        names = ", ".join(layout.columns)
        raise ValueError(f"{place}: there are no *.jsonl files with lines in it; each line is an object with {names}")
    return parts


def _parts(kind: str, file: Path, images: Path) -> list[Lines]:
    starts, offset = array("Q"), 0
    with open(file, "rb") as lines:
        for line in lines:
            starts.append(offset)
            offset += len(line)
    step = min(MOST_LINES, max(1, len(starts) // WANTED_PARTS))
    return [
        Lines(
            kind=kind,
            file=str(file),
            images=str(images),
            first=index + 1,
            offset=starts[index],
            count=min(step, len(starts) - index),
        )
        for index in range(0, len(starts), step)
    ]


def read_lines(shards: list[Lines]) -> Iterator[Row]:
    """The rows of some parts; a line that says no pair is a faulty row, a blank one is none."""
    for part in shards:
        with open(part.file, "rb") as file:
            file.seek(part.offset)
            for number in range(part.first, part.first + part.count):
                line = file.readline()
                if not line.strip():
                    continue
                origin = f"{part.file} line {number}"
                try:
                    yield _row(part, origin, line)
                except RowFault as fault:
                    yield faulty_row(part.kind, origin, str(fault))


def _row(part: Lines, origin: str, line: bytes) -> Row:
    try:
        values = json.loads(line)
    except ValueError as error:  # not UTF-8, or no JSON
        raise RowFault(f"it is no JSON: {error}") from error
    kind: Kind = KINDS[part.kind]
    for name in kind.columns:
        value = values.get(name) if isinstance(values, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise RowFault(f"it has no text under {name!r}; it must have {', '.join(kind.columns)}")
    source, target = ({"path": str(Path(part.images) / values[name])} for name in (kind.source, kind.target))
    return good_row(part.kind, origin, source, target, values[kind.text])
