"""What is trained on: the data sets, their shares, and how they are read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from editar.training.data.rows import KINDS


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data set of the mixture."""

    kind: Literal["seed", "pipe", "depth", "canny", "segmentation", "pairs"]
    """Which of the published sets it is, or `pairs` for one's own."""
    weight: float = 1.0
    """Its share of the samples, as a part of all weights."""
    folder: Path | None = None
    """A local copy: the hub's repository, or for `pairs` jsonl files. Not given: streamed from the hub."""
    images: Path | None = None
    """What the names of images in jsonl files are relative to; not given: the folder, or SEED's folder of images."""
    revision: str | None = None
    """The commit that is streamed from the hub."""

    def __post_init__(self):
        if not self.weight > 0:
            raise ValueError(f"weight of {self.kind} is {self.weight}; it must be above 0")
        if (self.folder is None) == (self.revision is None):
            raise ValueError(f"{self.kind} needs either folder (a local copy) or revision (a commit of the hub's)")
        if self.folder is None and KINDS[self.kind].repository is None:
            raise ValueError(f"{self.kind} can't be streamed: its images are no parquet files; give folder")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on."""

    sources: tuple[Source, ...]
    """The data sets."""
    template: Literal["released", "paper"] = "released"
    """Wording of the translation prompts."""
    workers: int = 4
    """Processes that read and decode, for each process that trains; a run is resumed with as many."""
    block: int = 256
    """Rows that are shuffled among each other; each worker holds one block of each source, undecoded."""
    open_shards: int = 8
    """Files (or parts of jsonl files) of a source that are read side by side."""
    fault_rate: float = 0.001
    """Share of unusable rows above which the run stops."""
    split: Literal["examples", "shards"] = "examples"
    """How processes share the stream: `examples`: every one reads all and takes its part, so that a batch is the same
    for any number of processes; `shards`: each reads files of its own, which costs less reading."""
    seed: int = 0
    """Of orders and swaps."""

    def __post_init__(self):
        object.__setattr__(self, "sources", tuple(self.sources))
        if not self.sources:
            raise ValueError("data.sources is empty; give at least one")
        for name, least in (("workers", 0), ("block", 1), ("open_shards", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"data.{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 <= self.fault_rate < 1:
            raise ValueError(f"data.fault_rate is {self.fault_rate}; it must be in [0, 1)")
