"""What a method takes to run, told before anything is loaded: its files, and how much its networks have to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class NeededFile:
    """One file, or a folder that is there or not as a whole.

    name: its place under the folder of weights (or of data). source: where it is published. size: its bytes as
    published, None where no public record of it was found. licence: "" where none is known. path: where it lies on this
    machine, None where it doesn't. comes: what a run does about it when it is not there: it fetches it, makes it, or
    asks the user for it.
    """

    name: str
    source: str
    size: int | None = None
    licence: str = ""
    path: Path | None = None
    comes: Literal["fetched", "made", "given"] = "given"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one method needs; a method without weights has no files.

    passes: how many times a network is run for one image, counted as passes of a single image, by network: guidance
    runs it twice. unset: environment variables that a run needs and that are not set. note: what files and passes leave
    out.
    """

    files: tuple[NeededFile, ...] = ()
    passes: Mapping[str, int] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    note: str = ""

    @property
    def absent(self) -> tuple[NeededFile, ...]:
        """What a run could not start without and can't get by itself."""
        return tuple(file for file in self.files if file.path is None and file.comes == "given")
