"""Committed summaries of runs: what the tables need of a run directory, as text that stays the same.

A summary is one JSON file `<folder>/<benchmark>/<method>.json`, version 1, UTF-8, a sample to a line. Keys:
    summary_version     1
    manifest            the part of manifest.json that says which numbers these are (KEPT); nothing that names a machine
                        or that changes while the numbers stay
    fid                 fid.json, null where the run has none
    samples             one object a sample, sorted by sample_id: the columns of samples.parquet but for seconds, notes,
                        status and error (all samples are done). Scores are in raw units with all their digits;
                        undefined and counts are JSON in a string, as in the Parquet file
`reports.runs.read_runs` reads a summary wherever it reads a run directory.

A run of some of the methods must not take the others' rows out of the tables, so those are taken from their summaries;
and runs that cannot stand beside the summaries (another number of records, another seed) get tables of their own
elsewhere.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from editar.io.atomic import write_text
from reports.reproduction import TOLERANCES, reproduction
from reports.runs import SHARED, SUMMARY_VERSION, ReportError, Run, check_complete, read_run

FOLDER = "summaries"  # below the folder of the tables
KEPT = (
    "schema_version", "suite", "benchmark", "method", "card", "position", "protocol", "dataset", "method_settings",
    "scoring", "seed", "packages", "fingerprint", "counts",
)  # fmt: skip
DROPPED = ("seconds", "notes", "status", "error")
NO_NUMBERS = ("image_sha256",)  # may differ where all numbers are equal


def summary_files(folder: Path, benchmark: str | None = None) -> list[Path]:
    """The summaries beside the tables in `folder`, of one benchmark or of all, sorted."""
    return sorted((folder / FOLDER).glob(f"{benchmark or '*'}/*.json"))


def write_summary(run: Run, folder: Path) -> Path:
    """Writes the run's summary beside the tables in `folder`; returns its path. Refuses a run with missing samples."""
    check_complete(run)
    if run.is_mixed:
        raise ReportError(f"{run.path} mixes samples of different code; run it again with --fresh to commit it")
    manifest = run.manifest.to_json()
    content = {
        "summary_version": SUMMARY_VERSION,
        "manifest": {name: manifest[name] for name in KEPT} | {"device": {"type": run.manifest.device.type}},
        "fid": None if run.fid is None else run.fid.to_json(),
    }
    try:
        head = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
        lines = [json.dumps(sample, ensure_ascii=False, allow_nan=False) for sample in samples_of(run)]
    except ValueError as error:
        raise ReportError(f"{run.path} has a number that JSON has none for ({error}); run it again") from error
    path = folder / FOLDER / run.manifest.benchmark / f"{run.method}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, head + ',\n "samples": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n")


def samples_of(run: Run) -> list[dict[str, Any]]:
    """The samples as plain values, a missing one being None."""
    frame = run.samples.drop(columns=[name for name in DROPPED if name in run.samples]).reset_index()
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def same_setting(run: Run, other: Run) -> bool:
    """Whether the two may stand in one table: suite, protocol, data, scoring networks, seed and number of records."""
    return all(run.manifest.value(field) == other.manifest.value(field) for field in SHARED)


def same_numbers(run: Run, other: Run) -> bool:
    """Whether two runs of a method give the same rows, to the last digit."""

    def numbers(each: Run) -> tuple[Any, ...]:
        samples = [{k: v for k, v in sample.items() if k not in NO_NUMBERS} for sample in samples_of(each)]
        return samples, each.fid and replace(each.fid, generated="")

    return len(run.samples) == run.expected and numbers(run) == numbers(other)


def take(run_dirs: Sequence[Path], folder: Path) -> list[Path]:
    """Makes or replaces the summaries of these runs beside the tables in `folder`; returns their paths."""
    return [write_summary(read_run(path), folder) for path in run_dirs]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """folder: of the tables. run_dirs: what was run. rows: the run directory or the summary of each row. notes: what
    readers of the tables have to know of them. message: what the user has to. beside_committed: whether `folder` has
    summaries."""

    folder: Path
    run_dirs: Sequence[Path]
    rows: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    message: str = ""
    beside_committed: bool = False

    @property
    def all_run(self) -> bool:
        """Whether every row is of a run directory, whose images are there."""
        return all(path.is_dir() for path in self.rows)


def place_tables(run_dirs: Sequence[Path], folder: Path, elsewhere: Path) -> Placement:
    """Of finished runs of one benchmark. folder: where its tables belong; elsewhere: of runs that may not go there.

    A run that reproduces its summary up to another processor's arithmetic leaves the summary's row in place.
    """
    runs = [read_run(path) for path in run_dirs]
    summaries = [read_run(path) for path in summary_files(folder, runs[0].manifest.benchmark)]
    if not summaries:
        return Placement(folder=folder, run_dirs=run_dirs, rows=tuple(run_dirs))
    place = folder / FOLDER
    if not all(same_setting(run, other) and len(run.samples) == run.expected for run in runs for other in summaries):
        apart = f"these runs are not of the records and settings of {place}: their tables go to {elsewhere}"
        return Placement(folder=elsewhere, run_dirs=run_dirs, rows=tuple(run_dirs), message=apart)
    known = {summary.method: summary for summary in summaries}
    methods = [run.method for run in runs]
    equal = [run for run in runs if run.method in known and same_numbers(run, known[run.method])]
    close = [run for run in runs if run not in equal and run.method in known and _reproduces(run, known[run.method])]
    changed = [run for run in runs if run not in equal + close]
    committed = [summary for summary in summaries if summary.method not in methods]
    notes = [f"Measured apart from the other rows, which are of committed summaries: {_names(changed)}."]
    return Placement(
        folder=folder,
        run_dirs=run_dirs,
        rows=(*(run.path for run in equal + changed), *(known[run.method].path for run in close + committed)),
        notes=tuple(notes if changed else ()),
        message="\n".join(_message(place, equal, close, changed, committed)),
        beside_committed=True,
    )


def _reproduces(run: Run, summary: Run) -> bool:
    """Scores that have a tolerance within it, everything else equal."""
    try:
        found = reproduction(run.path, summary.path)
    except ReportError:
        return False
    rest = (
        replace(each, attempted=each.attempted.drop(columns=[*TOLERANCES], errors="ignore")) for each in (run, summary)
    )
    return not found.outside and same_numbers(*rest)


def _message(
    place: Path, equal: Sequence[Run], close: Sequence[Run], changed: Sequence[Run], committed: Sequence[Run]
) -> Iterator[str]:
    yield f"equal to {place}: {_names(equal)}"
    if close:
        yield f"equal but for rounding, so the rows stay those of {place}: {_names(close)}"
    yield f"measured now, and different or not there: {_names(changed)}"
    yield f"rows taken from {place}: {_names(committed)}"
    if changed:
        yield "to commit them: nox -s tables -- --take the run directories"


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(run.method for run in runs) or "none"
