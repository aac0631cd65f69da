"""`python -m benchmarks.compare RUN_A RUN_B`: what differs between two runs, in settings and in numbers."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro

from benchmarks.cli import run_command
from benchmarks.tools.run_data import find_data
from editar.io.atomic import write_text
from reports.runs import Run, read_run
from reports.tables.two_runs import compare


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Example: python -m benchmarks.compare runs/miniature/piebench/editar runs/miniature/piebench/masactrl

    Compare two run directories; the Markdown goes to standard output.
    """

    run_a: tyro.conf.Positional[Path]
    """A run directory: runs/<suite>/<benchmark>/<method>."""
    run_b: tyro.conf.Positional[Path]
    """Another one, of the same method or not; differences are B - A."""
    column: tuple[str, ...] = ()
    """Columns whose ten most moved samples are shown; the benchmark's first one without."""
    data: Path | None = None
    """Folder of the data set, for the prompts of these samples. The miniature's is found where a run has made it."""
    follow_links: Path | None = None
    """Links among the images of PIE-Bench may lead into this folder, as for `benchmarks.piebench`."""
    out: Path | None = None
    """Write the Markdown into this file, too."""


def write_comparison(args: Arguments) -> None:
    prompts = read_prompts(read_run(args.run_a), args.data, args.follow_links)
    text = compare(args.run_a, args.run_b, columns=args.column, prompts=prompts)
    print(text, end="")
    if args.out is not None:
        write_text(args.out, text)


def read_prompts(run: Run, data: Path | None, follow_links: Path | None) -> Mapping[str, str]:
    """What the run's samples were asked for, by sample id; nothing where no folder was given and the suite has none.

    Raises DatasetError or ValueError for a folder that is not the run's data set.
    """
    if data is None and run.manifest.suite != "miniature":
        return {}
    try:
        return find_data(run, [] if data is None else [data], follow_links).requests
    except ValueError:
        if data is None:
            return {}
        raise


main = partial(run_command, Arguments, write_comparison, "benchmarks.compare")

if __name__ == "__main__":
    sys.exit(main())
