"""Several data sets as one endless stream of batches, each with its share of the samples, however large it is.

    shards in random order, some open side by side -> endlessly again -> shuffled block by block      each data set
    -> drawn by weight -> split over the processes -> prepared, faulty rows skipped -> batches

The steps up to the split are those of the `datasets` library, whose state says exactly where a stream stands; with
`StatefulDataLoader` this also holds for the workers. The library's own shuffle buffer loses what it holds when a run is
resumed. So its place is taken by a shuffle of blocks, which are read again on resumption: memory and the loss of time
are bounded by the block.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from editar.config import require_seed
from editar.io.digests import bytes_digest, file_digest, json_digest
from editar.training.data.jsonl import find_lines, read_lines, sizes_digest
from editar.training.data.rows import KINDS, Example, Prepare, Row, RowFault

if TYPE_CHECKING:
    from datasets import IterableDataset
    from torchdata.stateful_dataloader import StatefulDataLoader

# Rates are not judged by a handful: as many faults as are allowed in this many rows may come at any time.
JUDGED_ROWS = 1000
FOOTER = 2**20  # bytes at the end of a parquet file


class TooManyFaults(ValueError):
    """More of the data can't be used than was allowed."""


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
    follow_links: Path | None = None
    """Links among these images may lead into this folder, not only into `folder`, `images` and the hub's cache."""
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
        require_seed(self.seed, "data.seed")
        if not 0 <= self.fault_rate < 1:
            raise ValueError(f"data.fault_rate is {self.fault_rate}; it must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """source, target: uint8 (B, 3, side, side); the lists have one entry a sample, `skipped` one a skipped row.

    number: how many batches came before it.
    """

    origins: list[str]
    tasks: list[str]
    texts: list[str]
    source: Tensor
    target: Tensor
    skipped: list[str]
    number: int = 0


def data_digests(config: DataConfig) -> dict[str, str]:
    """SHA-256 of what each local source lists: of jsonl files the content, and the sizes of the images that they name;
    of parquet files, which may be terabytes, size and end, where their footers say where every column's pages lie and
    what they hold. What the hub streams has its revision."""
    from editar.training.data.parquet import find_local

    found: dict[str, str] = {}
    for number, source in enumerate(config.sources):
        if source.folder is None:
            continue
        kind = KINDS[source.kind]
        if kind.repository is None:
            images = source.images or source.folder / kind.images
            files = {path: file_digest(path) for path in (source.folder / kind.lines).glob("*.jsonl")}
            files |= {path.with_suffix(".images"): sizes_digest(source.kind, path, images) for path in files}
        else:
            files = {path: _end(path) for path in {Path(part.path) for part in find_local(source.kind, source.folder)}}
        found |= {f"{number}/{path.name}": digest for path, digest in sorted(files.items())}
    return found


def _end(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - FOOTER))
        return json_digest([size, bytes_digest(file.read())])


def mixture(config: DataConfig, *, rank: int = 0, processes: int = 1, endpoint: str | None = None) -> "IterableDataset":
    """The endless rows of one process, undecoded. endpoint: of another hub than the default one."""
    from datasets import interleave_datasets, logging
    from datasets.distributed import split_dataset_by_node

    # It warns of the shuffle buffer, of which only the shuffled order of shards is used here.
    logging.set_verbosity_error()
    total = sum(source.weight for source in config.sources)
    mixed = interleave_datasets(
        [_endless(source, config, endpoint) for source in config.sources],
        probabilities=[source.weight / total for source in config.sources],
        seed=config.seed,
    )
    return split_dataset_by_node(mixed, rank=rank, world_size=processes, strategy=config.split)


def _endless(source: Source, config: DataConfig, endpoint: str | None) -> "IterableDataset":
    from datasets import Features, IterableDataset, Value

    shards, read = _find(source, endpoint)
    rows = IterableDataset.from_generator(read, gen_kwargs={"shards": shards})
    rows = rows.shuffle(seed=config.seed, buffer_size=1, max_buffer_input_shards=config.open_shards).repeat(None)
    cell = {"bytes": Value("binary"), "path": Value("string")}
    texts = {name: Value("string") for name in ("kind", "origin", "text", "fault")}
    # Said aloud, or the library would read the first rows of every source to find out.
    features = Features({**texts, "source": cell, "target": cell, "draw": Value("int64")})
    return rows.map(
        partial(_shuffled, seed=config.seed),
        with_indices=True,
        batched=True,
        batch_size=config.block,
        features=features,
    )


def _find(source: Source, endpoint: str | None) -> tuple[list[Any], Callable[[list[Any]], Iterator[Row]]]:
    if KINDS[source.kind].repository is None:
        assert source.folder is not None
        return list(find_lines(source.kind, source.folder, source.images, source.follow_links)), read_lines
    from editar.training.data.parquet import find_local, find_on_hub, read_tables

    if source.folder is not None:
        return list(find_local(source.kind, source.folder)), read_tables
    assert source.revision is not None
    return list(find_on_hub(source.kind, source.revision, endpoint)), read_tables


def _shuffled(block: dict[str, list], indices: list[int], seed: int) -> dict[str, list]:
    """The rows of a block in an order that depends only on its place; `draw` counts the rows of the source."""
    order = np.random.default_rng((seed, indices[0])).permutation(len(indices))
    return {**{name: [column[i] for i in order] for name, column in block.items()}, "draw": [indices[i] for i in order]}


class Examples(torch.utils.data.IterableDataset[Example]):
    """Prepares rows, and skips those that can't be used. Its state is the stream's, and the counts."""

    def __init__(self, rows: "IterableDataset", prepare: Prepare, fault_rate: float) -> None:
        self.rows, self.prepare, self.fault_rate = rows, prepare, fault_rate
        self.seen = self.faulty = 0

    def __iter__(self) -> Iterator[Example]:
        skipped: list[str] = []
        for row in self.rows:
            self.seen += 1
            try:
                example = self.prepare(row)
            except RowFault as fault:
                self.faulty += 1
                skipped.append(f"{row['origin']}: {fault}")
                self._judge(skipped[-1])
                continue
            yield replace(example, skipped=tuple(skipped))
            skipped = []

    def _judge(self, last: str) -> None:
        if self.faulty > self.fault_rate * max(self.seen, JUDGED_ROWS):
            raise TooManyFaults(
                f"{self.faulty} of {self.seen} rows could not be used, more than data.fault_rate "
                f"({self.fault_rate}) allows; the last one is {last}"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows.state_dict(), "seen": self.seen, "faulty": self.faulty}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows.load_state_dict(state["rows"])
        self.seen, self.faulty = state["seen"], state["faulty"]


def collate(examples: Sequence[Example]) -> Batch:
    return Batch(
        origins=[example.origin for example in examples],
        tasks=[example.task for example in examples],
        texts=[example.text for example in examples],
        source=torch.stack([example.source for example in examples]),
        target=torch.stack([example.target for example in examples]),
        skipped=[fault for example in examples for fault in example.skipped],
    )


def loader(
    config: DataConfig, side: int, batch_size: int, *, rank: int = 0, processes: int = 1, endpoint: str | None = None
) -> "StatefulDataLoader":
    """Endless batches of `batch_size` for one of `processes`; its state_dict() is the position behind the last one."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    rows = mixture(config, rank=rank, processes=processes, endpoint=endpoint)
    if config.workers > rows.num_shards:
        raise ValueError(
            f"data.workers is {config.workers}, but the smallest source has {rows.num_shards} files (or lines) to "
            "share; take fewer workers"
        )
    prepare = Prepare(side=side, template=config.template, seed=config.seed)
    return StatefulDataLoader(
        Examples(rows, prepare, config.fault_rate),
        batch_size=batch_size,
        num_workers=config.workers,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(config.seed),  # else it would draw from the training's
    )
