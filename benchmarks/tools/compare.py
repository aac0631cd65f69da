"""`python -m benchmarks.compare RUN_A RUN_B`: what differs between two runs, in settings and in numbers."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.datasets.faults import DatasetError
from benchmarks.datasets.piebench import read_piebench
from benchmarks.datasets.translation import read_translation
from benchmarks.datasets.translation_protocols import PROTOCOLS
from benchmarks.runs.schema import Manifest
from benchmarks.suites import MINIATURE_DATA, SUITES, TRANSLATION_SUITES, miniature_folder

EDITS = ("piebench", "ablation-guidance", "ablation-distillation")  # of data sets laid out like PIE-Bench


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
    out: Path | None = None
    """Write the Markdown into this file, too."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code. What a user can mend is told in one message, with code 2."""
    from editar.io.atomic import write_text
    from reports.runs import read_run
    from reports.tables.two_runs import compare

    args = tyro.cli(Arguments, args=arguments, prog="python -m benchmarks.compare")
    try:
        prompts = read_prompts(read_run(args.run_a).manifest, args.data)
        text = compare(args.run_a, args.run_b, columns=args.column, prompts=prompts)
        print(text, end="")
        if args.out is not None:
            write_text(args.out, text)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def read_prompts(manifest: Manifest, data: Path | None) -> dict[str, str]:
    """What the run's samples were asked for, by sample id: instructions, or captions; none without the data set.

    Raises DatasetError for a folder that can't be read, ValueError for one that is not the run's data set.
    """
    suite, benchmark = manifest.suite, manifest.benchmark
    task = benchmark.removeprefix("translation-")
    if data is None and suite != "miniature":
        return {}
    try:
        if benchmark in EDITS and suite in SUITES:
            digest, prompts = _edits(suite, data)
        elif task != benchmark and suite in TRANSLATION_SUITES:
            digest, prompts = _captions(suite, task, manifest.protocol, data)
        else:
            return {}
    except DatasetError:
        if data is None:
            return {}
        raise
    if digest != manifest.dataset.digest:
        if data is None:
            return {}
        raise ValueError(f"{data} is not the data set of these runs (digest {digest}); give theirs (flag --data)")
    return prompts


def _edits(suite: str, data: Path | None) -> tuple[str, dict[str, str]]:
    folder = data or MINIATURE_DATA
    dataset = read_piebench(folder, SUITES[suite].image_side)
    return dataset.digest, {record.sample_id: record.instruction for record in dataset.records}


def _captions(suite: str, task: str, protocol: str, data: Path | None) -> tuple[str, dict[str, str]]:
    options = PROTOCOLS.get(protocol.partition("+")[0])  # behind it are options that change no caption
    if options is None:
        raise ValueError(f"protocol is {protocol!r}; it must be one of {', '.join(PROTOCOLS)}")
    source = options.dataset(task)
    dataset = read_translation(source, data or miniature_folder(source), task, TRANSLATION_SUITES[suite].classes)
    prompts = {name: each.caption for each in dataset.records for name in options.sample_ids(each.sample_id)}
    return dataset.digest, prompts


if __name__ == "__main__":
    sys.exit(main())
