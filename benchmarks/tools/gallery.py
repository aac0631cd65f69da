"""The gallery of any runs, as one static page: `python -m benchmarks.gallery runs/miniature --out gallery`."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.cli import run_command
from benchmarks.tools.run_data import read_benchmarks
from reports.gallery.write import write_gallery


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Example: python -m benchmarks.gallery runs/miniature --out gallery

    Make a page of the pictures of run directories: samples as rows, methods as columns. It opens from the disk.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("runs"),)
    """Run directories, or folders that hold them."""
    out: Path = Path("gallery")
    """The gallery's folder; an earlier gallery there is replaced."""
    data: tuple[Path, ...] = ()
    """Folders of the data sets that the runs were made of, if they are not embedded."""
    follow_links: Path | None = None
    """Links among the images of PIE-Bench may lead into this folder, as for `benchmarks.piebench`."""


def make_gallery(args: Arguments) -> Path:
    """Writes the gallery; returns its page."""
    page = write_gallery(read_benchmarks(args.runs, args.data, args.follow_links), args.out)
    print(f"written: {page} ({page.stat().st_size / 1e6:.1f} MB, pictures beside it)")
    return page


main = partial(run_command, Arguments, make_gallery, "benchmarks.gallery")

if __name__ == "__main__":
    sys.exit(main())
