"""Reads run directories and the summaries that reports/committed.py makes of them, and refuses those that do not belong
together."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from benchmarks.runs.schema import (
    FID,
    MANIFEST,
    SAMPLE_ID,
    SAMPLES,
    Fid,
    Manifest,
    is_number,
    parse,
    read_fid,
    read_manifest,
    read_sample_table,
)

SUMMARY_VERSION = 1
SUMMARY_KEYS = ("summary_version", "manifest", "fid", "samples")
TAKE = "make it anew of the run: nox -s tables -- --take runs/<suite>"

# What has to be equal for two rows to stand in one table: dotted names in the manifest.
SHARED = (
    "suite", "benchmark", "protocol", "dataset.digest", "scoring.precision", "scoring.backbones", "seed",
    "counts.expected",
)  # fmt: skip


class ReportError(ValueError):
    """The runs cannot be put into a table as asked; the message names the run, the field and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One method's run. `attempted` are the done and failed samples, indexed by sample id and sorted by it.

    path: the run directory, or the file of a summary. fid: what fid.json says, None where there is none.
    """

    path: Path
    manifest: Manifest
    attempted: pd.DataFrame
    fid: Fid | None = None

    @property
    def method(self) -> str:
        return self.manifest.method

    @property
    def is_reference(self) -> bool:
        """Whether the row bounds the others and competes with none."""
        return self.manifest.card.kind == "reference"

    @property
    def is_mixed(self) -> bool:
        """Whether different code made and scored the samples, as whoever ran them allowed."""
        return len(self.manifest.sources) > 1

    @property
    def fid_path(self) -> Path:
        """The file that `fid` comes from, for messages."""
        return self.path / FID if self.path.is_dir() else self.path

    @property
    def expected(self) -> int:
        return self.manifest.counts.expected

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The samples that are done and have scores."""
        return self.attempted[self.attempted["status"] == "done"]


def find_runs(roots: Sequence[Path]) -> dict[tuple[str, str], list[Path]]:
    """The run directories at or below `roots`, by (suite, benchmark). Raises ReportError where there is none."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for manifest in (path for root in roots for path in _manifests(root)):
        try:
            content = read_manifest(manifest.parent)
        except ValueError as error:
            raise ReportError(f"{manifest} is no manifest of a run: {error}") from error
        assert content is not None
        groups.setdefault((content.suite, content.benchmark), []).append(manifest.parent)
    if not groups:
        places = ", ".join(map(str, roots))
        raise ReportError(f"no run directories in {places}: run a benchmark first, e.g. nox -s piebench")
    return groups


def _manifests(root: Path) -> Iterator[Path]:
    """Manifests at or below `root`, sorted; a run's own folders (its images) are not searched."""
    if (root / "manifest.json").is_file():
        yield root / "manifest.json"
    elif root.is_dir():
        for child in sorted(root.iterdir()):
            if child.is_dir():
                yield from _manifests(child)


def read_runs(
    paths: Sequence[Path],
    columns: Sequence[str],
    facts: Sequence[str],
    *,
    allow_partial: bool = False,
    repeated: bool = False,
) -> list[Run]:
    """The runs, in the order given, checked to share everything in SHARED.

    paths: run directories and summaries. columns: the scores they must have. facts: the columns that say of a sample
    what is equal in all runs. repeated: accept several runs of one method.
    """
    if not paths:
        raise ReportError("no run directories to render: run a benchmark first, e.g. nox -s piebench")
    runs = [_prepared(read_run(Path(path)), columns, facts) for path in paths]
    if not allow_partial:
        for run in runs:
            check_complete(run)
    _check_same(runs, facts)
    for run in runs if not repeated else ():
        if first := next((other for other in runs if other.method == run.method and other is not run), None):
            raise ReportError(
                f"two runs of method {run.method!r} in one table: {first.path} and {run.path}; leave one out"
            )
    return runs


def read_run(path: Path) -> Run:
    """A run directory, or a summary if `path` is a file; with all columns that it has, as they are stored.

    Raises ReportError.
    """
    run = _read_summary(path) if path.is_file() else _read_directory(path)
    if absent := [name for name in ("sample_id", "status", "undefined") if name not in run.attempted.columns]:
        raise ReportError(f"{path}: the table of samples lacks the columns {', '.join(absent)}")
    if wrong := [name for name in run.attempted["sample_id"] if not SAMPLE_ID.fullmatch(str(name))]:
        raise ReportError(f"{path}: a sample is called {wrong[0]!r:.200}, which can't be the name of a file")
    if run.attempted["sample_id"].duplicated().any():
        raise ReportError(f"{path}: the table of samples has a sample id twice; start the benchmark again with --fresh")
    return replace(run, attempted=run.attempted.set_index("sample_id").sort_index())


def _read_directory(path: Path) -> Run:
    for name in (MANIFEST, SAMPLES):
        if not (path / name).is_file():
            raise ReportError(f"{path} is not a finished run: {name} is missing; start the benchmark again")
    try:
        manifest, fid = read_manifest(path), read_fid(path)
        samples = read_sample_table(path / SAMPLES).to_pandas()
    except Exception as error:  # a broken Parquet file raises many kinds
        raise ReportError(f"{path} cannot be read: {error}; start the benchmark again with --fresh") from error
    assert manifest is not None
    return Run(path=path, manifest=manifest, attempted=samples, fid=fid)


def _read_summary(path: Path) -> Run:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        version, manifest, fid, samples = (content[name] for name in SUMMARY_KEYS)
        if version != SUMMARY_VERSION:
            raise ValueError(f"summary_version {version!r}, this code reads {SUMMARY_VERSION}")
        return Run(
            path=path,
            manifest=parse(Manifest, manifest),
            attempted=pd.DataFrame(samples).assign(status="done"),
            fid=None if fid is None else parse(Fid, fid),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ReportError(f"{path} is no readable summary of a run: {error!r}; {TAKE}") from error


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _prepared(run: Run, columns: Sequence[str], facts: Sequence[str]) -> Run:
    if absent := [name for name in (*facts, *columns) if name not in run.attempted.columns]:
        raise ReportError(f"{run.path}: the table of samples lacks the columns {', '.join(absent)}")
    for name in columns:
        values = run.attempted[name]
        if wrong := [key for key, value in values[values.notna()].items() if not is_number(value)]:
            raise ReportError(f"{run.path}: {name} of {wrong[0]} is no finite number")
    return replace(run, attempted=run.attempted.astype(dict.fromkeys(columns, "float64")))


def check_complete(run: Run) -> None:
    if len(run.samples) != run.expected:
        raise ReportError(
            f"{run.path}: {len(run.samples)} of {run.expected} samples are done; start the benchmark again to finish "
            "them, or pass --allow-partial to have n/N stamped on the row"
        )


def _check_same(runs: Sequence[Run], facts: Sequence[str]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for field in SHARED:
            here, there = (each.manifest.value(field) for each in (first, run))
            if here != there:
                raise ReportError(
                    f"these runs cannot share a table, {field} differs: {here!r} in {first.path}, "
                    f"{there!r} in {run.path}; render them apart, or run one again"
                )
    reached = set[str]().union(*(run.attempted.index for run in runs))
    if len(reached) > first.expected:
        raise ReportError(
            f"the runs hold {len(reached)} different samples where each expects {first.expected}: "
            f"{', '.join(str(run.path) for run in runs)} were made with different --limit or data"
        )
    for run in runs[1:]:
        shared = first.attempted.index.intersection(run.attempted.index)
        for name in facts:
            differs = first.attempted.loc[shared, name].ne(run.attempted.loc[shared, name])
            if differs.any():
                raise ReportError(f"{name} of sample {differs.idxmax()} differs between {first.path} and {run.path}")
