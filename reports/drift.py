"""`nox -s tables`: whether the committed tables are what their committed summaries give.

Everything is rendered into a temporary folder. Markdown has to be equal to the byte, plots up to what another processor
may draw differently. Image sheets are no tables: they are made of the images and not compared.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from reports.benchmark import known_benchmark
from reports.committed import summary_files, take
from reports.plots.style import share_of_different_pixels
from reports.runs import ReportError, find_runs
from reports.tables.report import write_document

COST = "-cost"  # of files that are written beside the tables, and never committed
LISTED = 3  # lines of a file
LONGEST = 60  # characters of a line


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
    except OSError as error:  # no room, no permission: it names the file
        print(f"error: {error}", file=sys.stderr)
        return 2


def check(folder: Path, *, write: bool) -> int:
    """Says which files differ, and how; returns 1 if some do and are not to be written."""
    with TemporaryDirectory() as name:
        rendered = Path(name)
        benchmarks = render_committed(folder, rendered)
        differing = differences(folder, rendered, benchmarks)
        for file, changes in differing.items():
            print(f"{folder / file}:", *changes, sep="\n  ")
        if not differing:
            print(f"{folder}: {len(committed_kinds(rendered))} files are what their summaries give")
            return 0
        if not write:
            print("to accept this: nox -s tables -- --write")
            return 1
        for file in differing:
            (folder / file).unlink(missing_ok=True)
        for path in rendered.iterdir():
            shutil.copy(path, folder)
        write_document(folder)  # of benchmarks without summaries too
        print("written")
    return 0


def render_committed(folder: Path, out: Path) -> list[str]:
    """Renders all tables and plots of the summaries in `folder` into `out`; returns the benchmarks' names."""
    benchmarks = sorted({path.parent.name for path in summary_files(folder)})
    if not benchmarks:
        raise ReportError(f"no summaries in {folder}: make them with nox -s tables -- --take runs/<suite>")
    for benchmark in benchmarks:
        known_benchmark(benchmark, folder).render(summary_files(folder, benchmark), out, plots=True)
    return benchmarks


def differences(folder: Path, rendered: Path, benchmarks: Sequence[str]) -> dict[str, list[str]]:
    """By file name, what differs between the committed files and the rendered ones of these benchmarks."""
    new = committed_kinds(rendered)
    old = {path.name for benchmark in benchmarks for path in folder.glob(f"{benchmark}*.md")}
    found = {}
    for name in sorted(new | {name for name in old if not name.endswith(f"{COST}.md")}):
        if not (folder / name).is_file():
            found[name] = ["is not committed"]
        elif name not in new:
            found[name] = ["no summary gives it"]
        elif changes := file_differences(folder / name, rendered / name):
            found[name] = changes
    return found


def committed_kinds(rendered: Path) -> set[str]:
    """The names of the rendered files that are committed; the others are made of the same tables."""
    return {path.name for path in rendered.iterdir() if path.suffix in (".md", ".png")}


def file_differences(committed: Path, rendered: Path) -> list[str]:
    """What differs, for people to read; empty for equal files. Both exist."""
    if committed.suffix == ".png":
        share = share_of_different_pixels(committed, rendered)
        return [f"{share:.2%} of the pixels differ"] if share else []
    lines = list(_line_differences(committed.read_text("utf-8"), rendered.read_text("utf-8")))
    more = [f"and {len(lines) - LISTED} more lines"] if len(lines) > LISTED else []
    return lines[:LISTED] + more


def _line_differences(old: str, new: str) -> Iterator[str]:
    for number, (before, after) in enumerate(zip_longest(old.splitlines(), new.splitlines()), start=1):
        if before is None or after is None:
            where = "only committed" if after is None else "not committed"
            yield f"line {number}: {where}: {_short(before or after or '')}"  # an empty line, too
        elif before != after:
            words = zip_longest(before.split(), after.split(), fillvalue="nothing")
            changes = [f"{a} -> {b}" for a, b in words if a != b]
            yield f"line {number} ({_short(before)}): {', '.join(changes[:LISTED])}"


def _short(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


if __name__ == "__main__":
    sys.exit(main())
