"""A small run of the miniature, against the committed summaries: `python -m benchmarks.small_run`, what CI runs.

The first records of PIE-Bench by three methods and of one translation, made and scored as the benchmarks do; each
sample's scores have to be the committed ones within the tolerances of reports/reproduction.py.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tyro

from benchmarks import piebench, translation
from reports.committed import FOLDER
from reports.reproduction import reproduction
from reports.runs import ReportError, find_runs

SUITE = "miniature"
METHODS = ("copy-source", "vq-reconstruction", "editar")
TASK: Final = "canny"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Example: python -m benchmarks.small_run --records 8

    Run a few records of the miniature and compare their scores with the committed ones.
    """

    out: Path = Path("runs/small")
    """Where run directories, tables and image sheets go."""
    records: int = 8
    """Of each benchmark; whole batches of 8 are computed as they were for the summaries."""
    committed: Path = Path("reports") / SUITE
    """The folder of the committed tables, with the summaries below it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 where a method's samples don't agree, or can't be compared."""
    settings = tyro.cli(Settings, args=arguments, prog="python -m benchmarks.small_run")
    try:
        found = [_compared(run_dir, settings.committed) for run_dir in run(settings)]
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0 if all(found) else 1


def run(settings: Settings) -> list[Path]:
    """Makes and scores the records; returns the run directories."""
    limit, out = settings.records, settings.out
    piebench.evaluate(piebench.Arguments(methods=METHODS, limit=limit, out=out))
    translation.evaluate(translation.Arguments(task=TASK, methods=("editar",), limit=limit, out=out))
    return [path for run_dirs in find_runs([out / SUITE]).values() for path in run_dirs]


def _compared(run_dir: Path, committed: Path) -> bool:
    found = reproduction(run_dir, committed / FOLDER / run_dir.parent.name / f"{run_dir.name}.json")
    print(found)
    return found.holds


if __name__ == "__main__":
    sys.exit(main())
