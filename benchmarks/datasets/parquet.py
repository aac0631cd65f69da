"""Rows of parquet shards, a few at a time: the schema is checked first, then row groups are streamed.

Memory does not depend on the number of rows: pages are read one after the other, and of what was read the last few
batches are kept, still encoded. A page is the least that can be read; writers of images put those of a row group, about
100, into one.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.datasets.faults import DatasetError, Fault
from editar.io.foreign import what_it_is
from editar.io.parquet import BATCH, BUFFER, CONTENTS, Content, column_fault

KEPT = 4  # batches: what a few threads or a batch of a benchmark's records go back to
MAX_COLUMN = 1 << 32  # bytes, decompressed, of a column of one row group; the hub's have some 100 MB
_FETCH_AGAIN = "fetch the file again"


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """start: the number of its first row, counted through all shards."""

    file: Path
    number: int
    start: int
    rows: int


class Rows:
    """The rows of several shards, numbered through. Safe to read from several threads."""

    def __init__(self, shards: Sequence[Path], columns: Mapping[str, Content]) -> None:
        """Reads the shards' footers only. Raises DatasetError with all that is wrong with the files and columns."""
        self.columns = list(columns)
        self.groups: list[RowGroup] = []
        faults: list[Fault] = []
        start = 0
        for path in shards:
            try:
                with pq.ParquetFile(path) as file:
                    for name, content in columns.items():
                        if problem := column_fault(file.schema_arrow, name, content):
                            remedy = f"it must be {CONTENTS[content]}"
                            faults.append(Fault(file=path, column=name, problem=problem, remedy=remedy))
                    counts = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
                    faults += _size_faults(path, file.metadata, columns)
            except (OSError, pa.ArrowException) as error:
                what = what_it_is(path) if path.is_file() else None
                problem = what or f"it is cut off or no parquet file: {error}"
                faults.append(Fault(file=path, problem=problem, remedy=_FETCH_AGAIN))
                continue
            for number, count in enumerate(counts):
                self.groups.append(RowGroup(file=path, number=number, start=start, rows=count))
                start += count
        if not start and not faults:
            faults.append(Fault(file=shards[0], problem="there are no rows in it", remedy=_FETCH_AGAIN))
        if faults:
            raise DatasetError(faults)
        self.groups = [group for group in self.groups if group.rows]
        self.count = start
        self._lock = Lock()
        self._batches: deque[tuple[int, pa.RecordBatch]] = deque(maxlen=KEPT)  # (number of the first row, rows)
        self._stream: Iterator[tuple[int, pa.RecordBatch]] = iter(())
        self._group: RowGroup | None = None  # that is being streamed
        self._next = 0  # the row that the stream comes to next
        self._torn: dict[RowGroup, tuple[int, str]] = {}  # the first row that can't be read, and why

    def __len__(self) -> int:
        return self.count

    def group_of(self, index: int) -> RowGroup:
        return self.groups[bisect_right(self.groups, index, key=lambda group: group.start) - 1]

    def __getitem__(self, index: int) -> dict[str, pa.Scalar]:
        """The row as arrow scalars by column. In order, each row group is read once; a step back reads it anew.

        Raises DatasetError when the row can't be read.
        """
        assert 0 <= index < self.count, index
        with self._lock:
            for start, batch in self._batches:
                if start <= index < start + batch.num_rows:
                    return _row(batch, index - start)
            group = self.group_of(index)
            first, problem = self._torn.get(group, (index + 1, ""))
            if index >= first:  # else each of its rows, as many as the footer says, would open the file again
                raise _torn(group, problem)
            if group is not self._group or index < self._next:
                self._group, self._next, self._stream = group, group.start, _stream(group, self.columns)
            try:
                for start, batch in self._stream:
                    self._next = start + batch.num_rows
                    self._batches.append((start, batch))
                    if index < self._next:
                        return _row(batch, index - start)
                problem = f"it has only {self._next - group.start} of the {group.rows} rows that its footer says"
            except (OSError, pa.ArrowException) as error:
                problem = f"it can't be read: {error}"
            self._group = None
            self._torn[group] = (self._next, problem)
            raise _torn(group, problem)


def _stream(group: RowGroup, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches of a row group with the numbers of their first rows. The file is closed with the generator."""
    with pq.ParquetFile(group.file, pre_buffer=False, buffer_size=BUFFER) as file:
        start = group.start
        for batch in file.iter_batches(BATCH, row_groups=[group.number], columns=columns, use_threads=False):
            yield start, batch
            start += batch.num_rows


def _torn(group: RowGroup, problem: str) -> DatasetError:
    return DatasetError([Fault(file=group.file, row_group=group.number, problem=problem, remedy=_FETCH_AGAIN)])


def _row(batch: pa.RecordBatch, position: int) -> dict[str, pa.Scalar]:
    return {name: batch.column(name)[position] for name in batch.schema.names}


def _size_faults(path: Path, metadata: pq.FileMetaData, columns: Mapping[str, Content]) -> list[Fault]:
    """What the footer says of sizes that can't be, before anything is decompressed."""
    faults = []
    length = path.stat().st_size
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if not 0 <= group.num_rows <= length:
            problem = f"it says {group.num_rows} rows in a file of {length} bytes"
            faults.append(Fault(file=path, row_group=number, problem=problem, remedy=_FETCH_AGAIN))
        for chunk in map(group.column, range(group.num_columns)):
            name, size = chunk.path_in_schema.partition(".")[0], chunk.total_uncompressed_size
            if name in columns and not 0 <= size <= MAX_COLUMN:
                problem = f"it says {size} bytes, decompressed; more than {MAX_COLUMN} are not read"
                faults.append(Fault(file=path, row_group=number, column=name, problem=problem, remedy=_FETCH_AGAIN))
    return faults
