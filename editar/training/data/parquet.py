"""Rows of the hub's parquet files, from a local copy or streamed at a pinned revision."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfFileSystem
from huggingface_hub.errors import HfHubHTTPError

from editar.io.parquet import BATCH, BUFFER, CONTENTS, Content, column_fault
from editar.training.data.rows import KINDS, Cell, Row, faulty_row, good_row

FILES, HUB_FOLDER = "train-*.parquet", "data"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A parquet file or one of its row groups. path: local, or within the hub's file system.

    group: None for all of them. endpoint: of another hub than the default one.
    """

    kind: str
    path: str
    on_hub: bool
    group: int | None = None
    endpoint: str | None = None

    def open(self) -> AbstractContextManager[BinaryIO]:
        if self.on_hub:
            return HfFileSystem(endpoint=self.endpoint).open(self.path, "rb")
        return open(self.path, "rb")


def find_local(kind: str, folder: Path) -> list[Table]:
    """The row groups of a local copy's training files. Raises ValueError where there are none.

    Groups rather than files, so that little is read again where a run is resumed, and more is mixed.
    """
    for place in (folder, folder / HUB_FOLDER):
        if paths := sorted(place.glob(FILES)):
            return [
                Table(kind=kind, path=str(path), on_hub=False, group=group) for path in paths for group in _groups(path)
            ]
    raise ValueError(
        f"{folder}: there is no {FILES} in it or in its {HUB_FOLDER}/; it must be a copy of the hub's "
        f"{KINDS[kind].repository}"
    )


def _groups(path: Path) -> list[int] | list[None]:
    try:
        return list(range(pq.read_metadata(path).num_row_groups))
    except (OSError, pa.ArrowException):
        return [None]  # who reads it will tell


def find_on_hub(kind: str, revision: str, endpoint: str | None = None) -> list[Table]:
    """The training files of the hub's data set at a commit; nothing of them is downloaded yet. Raises ValueError."""
    repository = KINDS[kind].repository
    assert repository is not None
    if not _COMMIT.fullmatch(revision):
        raise ValueError(
            f"revision of {repository} is {revision!r}; it must be a whole commit id (40 hex digits), since a branch "
            "moves while a run is resumed. The hub's page of the data set lists them under Files, History"
        )
    listed = HfFileSystem(endpoint=endpoint).ls(f"datasets/{repository}@{revision}/{HUB_FOLDER}", detail=False)
    if not (paths := sorted(str(path) for path in listed if fnmatch(str(path), f"*/{FILES}"))):
        raise ValueError(f"{repository} has no {HUB_FOLDER}/{FILES} at revision {revision}")
    return [Table(kind=kind, path=path, on_hub=True, endpoint=endpoint) for path in paths]


def read_tables(shards: list[Table]) -> Iterator[Row]:
    """The rows of some files, in order. What is damaged gives faulty rows, as many as are known to be lost.

    Raises ValueError where a column is missing, for no row of the file could be used, and HfHubHTTPError where the hub
    doesn't answer: its rows aren't damaged, and a run that is resumed later gets them.
    """
    for table in shards:
        try:
            with table.open() as file:
                yield from _rows(table, pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER))
        except HfHubHTTPError:
            raise
        except (OSError, pa.ArrowException) as error:
            yield faulty_row(table.kind, table.path, f"the file can't be read: {error}")


def _rows(table: Table, file: pq.ParquetFile) -> Iterator[Row]:
    kind = KINDS[table.kind]
    for name in kind.columns:
        content: Content = "text" if name == kind.text else "image"
        if fault := column_fault(file.schema_arrow, name, content):
            remedy = f"it must be {CONTENTS[content]}; is it {kind.repository}?"
            raise ValueError(f"{table.path}, column {name}: {fault}; {remedy}")
    end = 0
    for group in range(file.num_row_groups):
        number, end = end, end + file.metadata.row_group(group).num_rows
        if table.group not in (None, group):
            continue
        try:
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=list(kind.columns), use_threads=False):
                for position in range(batch.num_rows):
                    yield _row(table, number, batch, position)
                    number += 1
        except HfHubHTTPError:
            raise
        except (OSError, pa.ArrowException) as error:
            for lost in range(number, end):
                yield faulty_row(table.kind, f"{table.path} row {lost}", f"its row group can't be read: {error}")


def _row(table: Table, number: int, batch: pa.RecordBatch, position: int) -> Row:
    kind, origin = KINDS[table.kind], f"{table.path} row {number}"
    try:
        text = batch.column(kind.text)[position].as_py()
    except UnicodeDecodeError as error:
        return faulty_row(table.kind, origin, f"byte {error.start} of {kind.text} is not UTF-8")
    source = _cell(batch, kind.source, position) if kind.source else None
    return good_row(table.kind, origin, source, _cell(batch, kind.target, position), text)


def _cell(batch: pa.RecordBatch, name: str, position: int) -> Cell:
    """The image's file. Never its path: a row that names a file could name any of this machine's."""
    value = batch.column(name)[position]
    return {"bytes": value["bytes"].as_py() if value.is_valid else None, "path": None}
