"""The data sets that finished runs were made of, found again: for galleries, figures and comparisons."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.datasets.faults import DatasetError
from benchmarks.datasets.piebench import read_piebench
from benchmarks.datasets.translation import read_translation
from benchmarks.datasets.translation_protocols import TranslationProtocol
from benchmarks.runs.edit_benchmark import view_edit
from benchmarks.runs.translation_benchmark import view_translation
from benchmarks.suites import SUITES, TRANSLATION_SUITES, Suite
from reports.gallery.write import BenchmarkRuns, read_benchmark_runs, with_pages
from reports.runs import Run, find_runs
from reports.sheets.sheet import SampleView

TRANSLATION = "translation-"  # before the task in a benchmark's name


@dataclass(frozen=True, kw_only=True)
class RunData:
    """A data set. requests: what each sample asks for, an instruction or a caption. view: what a sample looks like."""

    digest: str
    requests: Mapping[str, str]
    view: Callable[[str], SampleView]


def read_benchmarks(
    roots: Sequence[Path], data: Sequence[Path] = (), follow_links: Path | None = None
) -> list[BenchmarkRuns]:
    """The runs at or below `roots`, by suite and benchmark, with the data sets that they were made of.

    data, follow_links: see `find_data`. Raises ReportError for runs that don't belong together, and what `find_data`
    raises.
    """
    found = [read_benchmark_runs(run_dirs) for run_dirs in with_pages(find_runs(roots))]
    return [replace(each, view=find_data(each.runs[0], data, follow_links).view) for each in found]


def find_data(run: Run, data: Sequence[Path] = (), follow_links: Path | None = None) -> RunData:
    """The data set whose digest the run's manifest has, in one of the folders `data` or, without any, the suite's own.

    follow_links: see `read_piebench`. Raises DatasetError for folders that can't be read, and ValueError where none
    holds that data set.
    """
    wanted, others, faults = run.manifest.dataset.digest, [], []
    for folder in data or _written(run) or (None,):
        try:
            found = _read(run, folder, follow_links)
        except DatasetError as error:
            faults.append(error)
            continue
        if found.digest == wanted:
            return found
        others.append(f"{folder or 'the embedded one'} has {found.digest[:12]}")
    if faults and not others:
        raise faults[0]
    raise ValueError(
        f"{run.path} was made of the data set {wanted[:12]}, but {', '.join(others)}; give the folder of that one as "
        "--data"
    )


def _written(run: Run) -> list[Path]:
    """The data sets that an ablation wrote beside its runs (benchmarks/ablations.py)."""
    name = f"{run.manifest.benchmark}-training"
    return sorted(path.parent for path in run.path.parents[1].glob(f"{name}/*/mapping_file.json"))


def _read(run: Run, folder: Path | None, follow_links: Path | None) -> RunData:
    translation = run.manifest.benchmark.startswith(TRANSLATION)
    suites = TRANSLATION_SUITES if translation else SUITES
    suite = suites.get(run.manifest.suite)
    if suite is None:
        raise ValueError(f"{run.path} is of the suite {run.manifest.suite!r}; known are {', '.join(suites)}")
    return _translations(run, folder, suite) if translation else _edits(folder, suite, follow_links)


def _edits(folder: Path | None, suite: Suite, follow_links: Path | None) -> RunData:
    dataset = read_piebench(suite.dataset(folder), suite.image_side, follow_links=follow_links)
    records = {record.sample_id: record for record in dataset.records}
    return RunData(
        digest=dataset.digest,
        requests={name: record.instruction for name, record in records.items()},
        view=lambda name: view_edit(records[name]),
    )


def _translations(run: Run, folder: Path | None, suite: Suite) -> RunData:
    task = run.manifest.benchmark.removeprefix(TRANSLATION)
    try:
        protocol = TranslationProtocol(**(run.manifest.scoring.options or {}))
    except TypeError as error:
        raise ValueError(f"{run.path}: scoring.options of manifest.json are no protocol: {error}") from error
    source = protocol.dataset(task)
    dataset = read_translation(source, suite.dataset(source, folder), task, suite.classes)
    records = protocol.samples(dataset)
    return RunData(
        digest=dataset.digest,
        requests={name: record.caption for name, record in records.items()},
        view=lambda name: view_translation(dataset, protocol, records[name]),
    )
