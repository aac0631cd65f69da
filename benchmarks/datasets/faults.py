"""What is wrong with a data set: all of it in one error, each fault with its place and its remedy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong. record, row group, column and field are None where the whole of what holds them is meant."""

    file: Path
    problem: str
    remedy: str
    record: str | None = None
    field: str | None = None
    row_group: int | None = None  # of a parquet file, counted from 0
    column: str | None = None

    def __str__(self) -> str:
        place = [str(self.file)]
        for name in ("row group", "record", "field", "column"):
            if (value := getattr(self, name.replace(" ", "_"))) is not None:
                place.append(f"{name} {value!r}")
        return f"{', '.join(place)}: {self.problem}; {self.remedy}"


class DatasetError(ValueError):
    """A data set that can't be used as it is, with every fault that was found."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}:"
        super().__init__("\n  ".join([count, *map(str, self.faults)]))
