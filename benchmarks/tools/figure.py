"""A figure of chosen samples, as PNG and PDF: `python -m benchmarks.figure runs/miniature/piebench --ids 600000000001`.

Like the paper's Figures 3 to 5: what the methods were given, what each made of it, and the request below. Runs of
several benchmarks, the three translations say, become blocks of one figure.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.cli import run_command
from benchmarks.tools.run_data import read_benchmarks
from reports.gallery.write import BenchmarkRuns
from reports.sheets.figure import write_figure
from reports.sheets.sheet import SheetBlock, sheet_block


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Example: python -m benchmarks.figure runs/miniature/piebench --ids 600000000001 --out figure3

    Draw what methods made of samples that you choose, as PNG and PDF.
    """

    ids: tuple[str, ...]
    """Sample ids, a row for each, in this order."""
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("runs"),)
    """Run directories, or folders that hold them."""
    methods: tuple[str, ...] = ()
    """The methods to show, in this order; without names all of the runs."""
    out: Path = Path("figure")
    """The figure; it becomes two files that end in .png and .pdf."""
    data: tuple[Path, ...] = ()
    """Folders of the data sets that the runs were made of, if they are not embedded."""
    follow_links: Path | None = None
    """Links among the images of PIE-Bench may lead into this folder, as for `benchmarks.piebench`."""

    def __post_init__(self) -> None:
        if not self.ids:
            raise ValueError("--ids is empty; name the samples to draw")


def make_figure(args: Arguments) -> list[Path]:
    """Writes the figure; returns its files. Raises ValueError for samples and methods that no run has."""
    benchmarks = read_benchmarks(args.runs, args.data, args.follow_links)
    for flag, names, known in (
        ("--ids", args.ids, {each for benchmark in benchmarks for each in benchmark.sample_ids}),
        ("--methods", args.methods, {label for benchmark in benchmarks for label in benchmark.labels}),
    ):
        if absent := next((name for name in names if name not in known), None):
            listed = sorted(known)
            few = ", ".join(listed if len(listed) < 20 else [*listed[:3], "...", listed[-1]])
            raise ValueError(f"{flag}: the runs have no {absent!r}; they have {few}")
    blocks = [block for benchmark in benchmarks if (block := _block(benchmark, args)).rows]
    files = write_figure(blocks, args.out.with_suffix("") if args.out.suffix in (".png", ".pdf") else args.out)
    print("\n".join(f"written: {path}" for path in files))
    return files


def _block(benchmark: BenchmarkRuns, args: Arguments) -> SheetBlock:
    assert benchmark.view is not None
    runs = dict(zip(benchmark.labels, benchmark.runs, strict=True))
    chosen = {label: runs[label] for label in args.methods or benchmark.labels if label in runs}
    known = [name for name in args.ids if name in benchmark.sample_ids]
    return sheet_block(chosen, {name: benchmark.view(name) for name in known}, with_ids=False)


main = partial(run_command, Arguments, make_figure, "benchmarks.figure")

if __name__ == "__main__":
    sys.exit(main())
