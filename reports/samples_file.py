"""samples.parquet, which carries the SHA-256 of what is in it: Parquet itself finds damage in some places only."""

import hashlib
import json
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

CONTENT = b"content_sha256"  # key in the file's metadata


def write_samples(table: pa.Table, file: IO[bytes]) -> None:
    pq.write_table(table.replace_schema_metadata({CONTENT: _digest(table)}), file)


def read_samples(path: Path) -> pa.Table:
    """The table, exactly as it was written. Raises ValueError where the file is damaged.

    Files without a digest, of before there was one or made by others, are taken as they are.
    """
    try:
        table = pq.read_table(path, partitioning=None)
        wanted = (table.schema.metadata or {}).get(CONTENT)
        whole = wanted is None or wanted == _digest(table)
    except Exception as error:  # Arrow raises many kinds (OSError, NotImplementedError, UnicodeDecodeError ...)
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not whole:
        raise ValueError("its content is not what was written: the SHA-256 differs")
    return table


def _digest(table: pa.Table) -> bytes:
    return hashlib.sha256(json.dumps([table.column_names, table.to_pylist()]).encode()).hexdigest().encode()
