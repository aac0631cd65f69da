"""Where the tables of runs go, and which rows stand beside theirs.

Beside committed tables lie the summaries that they were made of (reports/summaries.py). A run of some of the rows must
not take the others out of them, so those are taken from their summaries, which is said; and runs that cannot stand
beside the summaries (another number of records, another seed) get tables of their own elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.runs import read_run
from reports.summaries import FOLDER, same_numbers, same_setting, summary_files


@dataclass(frozen=True, kw_only=True)
class Destination:
    """folder: of the tables. committed: the summaries of the rows that were not run. notes: what readers of the tables
    have to know of it. message: what the user has to. plots: whether `folder` keeps plots, which have to follow."""

    folder: Path
    committed: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    message: str = ""
    plots: bool = False


def destination(run_dirs: Sequence[Path], folder: Path, elsewhere: Path) -> Destination:
    """Of finished runs of one benchmark. folder: where its tables belong; elsewhere: of runs that may not go there."""
    runs = [read_run(path) for path in run_dirs]
    summaries = [read_run(path) for path in summary_files(folder, runs[0].manifest.benchmark)]
    if not summaries:
        return Destination(folder=folder)
    place = folder / FOLDER
    if not all(same_setting(run, other) and len(run.samples) == run.expected for run in runs for other in summaries):
        apart = f"these runs are not of the records and settings of {place}: their tables go to {elsewhere}"
        return Destination(folder=elsewhere, message=apart)
    known = {summary.method: summary for summary in summaries}
    here = {run.method for run in runs}
    others = [summary for summary in summaries if summary.method not in here]
    changed = [run.method for run in runs if run.method not in known or not same_numbers(run, known[run.method])]
    said = [f"equal to {place}: {', '.join(run.method for run in runs if run.method not in changed) or 'none'}"]
    said.append(f"measured now, and different or not there: {', '.join(changed) or 'none'}")
    said.append(f"rows taken from {place}: {', '.join(other.method for other in others) or 'none'}")
    notes = []
    if changed:
        notes.append(f"Measured apart from the other rows, which are of committed summaries: {', '.join(changed)}.")
        said.append("to commit them: nox -s tables -- --take the run directories")
    return Destination(
        folder=folder,
        committed=tuple(other.path for other in others),
        notes=tuple(notes),
        message="\n".join(said),
        plots=True,
    )
