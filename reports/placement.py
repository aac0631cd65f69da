"""Where the tables of runs go, and which committed rows stand beside theirs.

Beside committed tables lie the summaries that they were made of (reports/summaries.py). A run of some of the methods
must not take the others' rows out of them, so those are taken from their summaries; and runs that cannot stand beside
the summaries (another number of records, another seed) get tables of their own elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reports.reproduction import TOLERANCES, reproduction
from reports.runs import ReportError, Run, read_run
from reports.summaries import FOLDER, same_numbers, same_setting, summary_files


@dataclass(frozen=True, kw_only=True)
class Placement:
    """folder: of the tables. rows: run directories, and summaries of what was not run. notes: what readers of the
    tables have to know of them. message: what the user has to. beside_committed: whether `folder` has summaries."""

    folder: Path
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
        return Placement(folder=folder, rows=tuple(run_dirs))
    place = folder / FOLDER
    if not all(same_setting(run, other) and len(run.samples) == run.expected for run in runs for other in summaries):
        apart = f"these runs are not of the records and settings of {place}: their tables go to {elsewhere}"
        return Placement(folder=elsewhere, rows=tuple(run_dirs), message=apart)
    known = {summary.method: summary for summary in summaries}
    methods = [run.method for run in runs]
    equal = [run for run in runs if run.method in known and same_numbers(run, known[run.method])]
    close = [run for run in runs if run not in equal and run.method in known and _reproduces(run, known[run.method])]
    changed = [run for run in runs if run not in equal + close]
    committed = [summary for summary in summaries if summary.method not in methods]
    notes = [f"Measured apart from the other rows, which are of committed summaries: {_names(changed)}."]
    return Placement(
        folder=folder,
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
