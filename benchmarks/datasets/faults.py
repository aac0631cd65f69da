"""What is wrong with a data set: all of it in one error, each fault with its place and its remedy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong. record and field are None where the whole file, or the whole record, is meant."""

    file: Path
    problem: str
    remedy: str
    record: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        place = [str(self.file)]
        if self.record is not None:
            place.append(f"record {self.record!r}")
        if self.field is not None:
            place.append(f"field {self.field!r}")
        return f"{', '.join(place)}: {self.problem}; {self.remedy}"


class DatasetError(ValueError):
    """A data set that can't be used as it is, with every fault that was found."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}:"
        super().__init__("\n  ".join([count, *map(str, self.faults)]))
