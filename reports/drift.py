"""`nox -s tables`: whether the committed tables are what their committed summaries give.

Everything is rendered into a temporary folder and compared with what is committed (reports/equality.py has the
tolerances). The sheets of images are no tables: they are made of the images and not compared.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from reports.equality import file_differences
from reports.renderers import RENDERERS
from reports.runs import ReportError, find_runs
from reports.summaries import summary_files, take
from reports.tables.comparison import DOCUMENT

KINDS = (".md", ".tex", ".csv", ".html")  # all that is committed of these under a benchmark's name is rendered
COST = "-cost"  # of files that are written beside the tables, and never committed


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Example: python -m reports.drift

    Compare committed tables with what their summaries give; the exit status is 1 if any differs.
    """

    folder: Path = Path("reports/miniature")
    """Where the tables are, and the summaries below it."""
    write: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Accept: replace the committed files that differ."""
    take: tuple[Path, ...] = ()
    """Run directories, or folders that hold them: make their summaries anew first, and write."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status; what is wrong with runs or summaries goes to standard error."""
    settings = tyro.cli(Settings, args=arguments, prog="python -m reports.drift")
    try:
        if settings.take:
            runs = [path for run_dirs in find_runs(settings.take).values() for path in run_dirs]
            print("\n".join(f"taken: {path}" for path in take(runs, settings.folder)))
        return check(settings.folder, write=settings.write or bool(settings.take))
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def check(folder: Path, *, write: bool) -> int:
    """Says which files differ, and how; returns 1 if some do and are not to be written."""
    with TemporaryDirectory() as name:
        rendered = Path(name)
        benchmarks = render_committed(folder, rendered)
        differing = differences(folder, rendered, benchmarks)
        for file, changes in differing.items():
            print(f"{folder / file}:", *changes, sep="\n  ")
        if not differing:
            print(f"{folder}: {len(list(rendered.iterdir()))} files are what their summaries give")
            return 0
        if not write:
            print("to accept this: nox -s tables -- --write")
            return 1
        for file in differing:
            if (rendered / file).exists():
                shutil.copyfile(rendered / file, folder / file)
            else:
                (folder / file).unlink()
        print("written")
    return 0


def render_committed(folder: Path, out: Path) -> list[str]:
    """Renders all tables and plots of the summaries in `folder` into `out`; returns the benchmarks' names."""
    benchmarks = sorted({path.parent.name for path in summary_files(folder)})
    if not benchmarks:
        raise ReportError(f"no summaries in {folder}: make them with nox -s tables -- --take runs/<suite>")
    for path in folder.glob("*.tex"):  # of benchmarks without summaries: the document shows their tables too
        if not path.name.startswith((*benchmarks, DOCUMENT)):
            shutil.copy(path, out)
    for benchmark in benchmarks:
        if benchmark not in RENDERERS:
            raise ReportError(f"{folder} has summaries of {benchmark!r}; there are tables for {', '.join(RENDERERS)}")
        RENDERERS[benchmark](summary_files(folder, benchmark), out, plots=True)
    return benchmarks


def differences(folder: Path, rendered: Path, benchmarks: Sequence[str]) -> dict[str, list[str]]:
    """By file name, what differs between the committed files and the rendered ones of these benchmarks."""
    new = {path.name for path in rendered.iterdir()}
    tables = (path for benchmark in benchmarks for path in folder.glob(f"{benchmark}*") if path.suffix in KINDS)
    old = {path.name for path in tables if not path.stem.endswith(COST)}
    found = {}
    for name in sorted(new | old):
        if not (folder / name).is_file():
            found[name] = ["is not committed"]
        elif name not in new:
            found[name] = ["no summary gives it"]
        elif changes := file_differences(folder / name, rendered / name):
            found[name] = changes
    return found


if __name__ == "__main__":
    sys.exit(main())
