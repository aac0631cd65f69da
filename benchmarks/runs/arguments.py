"""The flags of the benchmarks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.runs.execute import Shard
from benchmarks.runs.schema import LABEL
from editar.config import require_seed

DEFAULT_OUT = Path("runs")


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """The flags of whatever makes run directories."""

    out: Path = DEFAULT_OUT
    """Where the run directories go."""
    limit: int | None = None
    """Only the first records, in the order of their ids."""
    seed: int = 0
    """All randomness comes from it."""
    batch_size: int = 8
    """Images at a time. No image depends on it."""
    threads: int = 2
    """Threads of each process on a CPU. Images depend on it in their last digits, so it is part of the run; more
    processes (torchrun, --shard) change no image."""
    shard: str | None = None
    """i/n: this process does every n-th batch, from the i-th (0 to n-1). torchrun's processes share without it."""
    fresh: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Remove what earlier runs of these methods left."""
    allow_partial: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Render the table although samples are missing; their number is stamped on it."""
    allow_mixed: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with a run although the code has changed since; the table says so."""

    def __post_init__(self) -> None:
        """Raises ValueError that names the flag."""
        for flag, value in (
            ("--limit", self.limit),
            ("--batch-size", self.batch_size),
            ("--threads", self.threads),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{flag} is {value}; it must be at least 1")
        require_seed(self.seed, "--seed")
        shard = Shard.parse(self.shard)
        if self.fresh and shard.count > 1:
            raise ValueError(
                "--fresh with several processes: each would remove the others' work; start one with it first"
            )


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments(RunArguments):
    """The flags that every benchmark of methods has."""

    suite: Literal["miniature", "paper"] = "miniature"
    """miniature: embedded data and small networks, offline. paper: the official ones."""
    methods: tuple[str, ...] = ()
    """Names of methods, or all that there are networks for; external:RECIPE.toml is a method of your own. Without names
    and --images: PIE-Bench's quick rows (QUICK in baselines/__init__.py), all of translation."""
    data: Path | None = None
    """Folder of the data set."""
    weights: Path | None = None
    """Folder of weights, of the methods and of the scoring networks."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only say what each method needs, what of it is here, what would be fetched, and what it takes."""
    images: Path | None = None
    """Score this folder of finished images."""
    label: str | None = None
    """The row's name for --images."""
    images_at_once: int = 4
    """Images that a diffusion network computes at once, whatever the batch size: part of the run, as rounding depends
    on it. Fewer take less memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images_at_once < 1:
            raise ValueError(f"--images-at-once is {self.images_at_once}; it must be at least 1")
        if (self.images is None) != (self.label is None):
            raise ValueError("--images and --label go together: the folder, and the name of its row")
        if self.label is not None and not LABEL.fullmatch(self.label):
            raise ValueError(f"--label is {self.label!r}; use letters, digits, '-', '_' and '.', at most 64")
