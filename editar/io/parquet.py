"""Columns of the hub's data sets in parquet files: how much is read at once, and whether they hold what they should."""

from typing import Literal

import pyarrow as pa

BATCH = 8  # rows in memory; images are a megabyte each
BUFFER = 1 << 20  # bytes read ahead of each column, instead of a whole row group, which has hundreds of megabytes
Content = Literal["image", "text", "label"]
CONTENTS: dict[Content, str] = {
    "image": "a struct with the field bytes (binary), as the hub stores images",
    "text": "a string",
    "label": "a list of rows of integers, or an image as a struct with the field bytes (binary)",
}


def column_fault(schema: pa.Schema, name: str, content: Content) -> str | None:
    """What is wrong with a column that is to be there once and to hold one of CONTENTS, None where nothing is."""
    count = len(schema.get_all_field_indices(name))
    if count != 1:
        return "it occurs more than once" if count else f"it is missing; there are {', '.join(schema.names)}"
    return None if _holds(schema.field(name).type, content) else f"it is of type {schema.field(name).type}"


def _holds(type_: pa.DataType, content: Content) -> bool:
    if content == "text":
        return pa.types.is_string(type_) or pa.types.is_large_string(type_)
    if content == "label" and _is_list(type_):
        return _is_list(type_.value_type) and pa.types.is_integer(type_.value_type.value_type)
    if not pa.types.is_struct(type_) or type_.get_field_index("bytes") < 0:
        return False
    stored = type_.field("bytes").type
    return pa.types.is_binary(stored) or pa.types.is_large_binary(stored)


def _is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
