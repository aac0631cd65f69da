"""Run directories with the data sets that they were made of, found again, for galleries and figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.datasets.faults import DatasetError
from benchmarks.datasets.piebench import read_piebench
from benchmarks.datasets.shown import shown_edit, shown_translation
from benchmarks.datasets.translation import read_translation
from benchmarks.datasets.translation_protocols import TranslationProtocol
from benchmarks.suites import SUITES, TRANSLATION_SUITES, Suite, TranslationSuite
from reports.gallery.write import Group, read_group, with_pages
from reports.runs import find_runs
from reports.sheets.pictures import Shown

TRANSLATION = "translation-"  # before the task in a benchmark's name


Found = tuple[str, Callable[[str], Shown]]  # a data set's digest, and what shows its samples


def read_groups(roots: Sequence[Path], data: Sequence[Path] = ()) -> list[Group]:
    """The runs at or below `roots`, by suite and benchmark, with the data sets that they were made of.

    data: folders of data sets; each group takes the one whose digest its manifests have. Raises ReportError for runs
    that don't belong together, DatasetError and ValueError where no data set is theirs.
    """
    groups = []
    for run_dirs in with_pages(find_runs(roots)):
        group = read_group(run_dirs)
        groups.append(Group(runs=group.runs, shown=_matching(group, data)))
    return groups


def _matching(group: Group, data: Sequence[Path]) -> Callable[[str], Shown]:
    """What shows the samples of the data set that the group's runs name, of `data` or, without any, the suite's own."""
    wanted, found, faults = group.manifest.dataset.digest, [], []
    for folder in data or _written(group) or (None,):
        try:
            digest, shown = _read(group, folder)
        except DatasetError as error:
            faults.append(error)
            continue
        if digest == wanted:
            return shown
        found.append(f"{folder or 'the embedded one'} has {digest[:12]}")
    if faults and not found:
        raise faults[0]
    raise ValueError(
        f"{group.runs[0].path} was made of the data set {wanted[:12]}, but {', '.join(found)}; give the folder of that "
        "one as --data"
    )


def _written(group: Group) -> list[Path]:
    """The data sets that an ablation wrote beside its runs (benchmarks/ablations.py)."""
    return sorted(
        path.parent for path in group.runs[0].path.parents[1].glob(f"{group.benchmark}-training/*/mapping_file.json")
    )


def _read(group: Group, folder: Path | None) -> Found:
    suites: Mapping[str, Suite | TranslationSuite]
    suites = TRANSLATION_SUITES if group.benchmark.startswith(TRANSLATION) else SUITES
    suite = suites.get(group.manifest.suite)
    if suite is None:
        path, name = group.runs[0].path, group.manifest.suite
        raise ValueError(f"{path} is of the suite {name!r}; known are {', '.join(suites)}")
    return _edits(folder, suite) if isinstance(suite, Suite) else _translations(group, folder, suite)


def _edits(folder: Path | None, suite: Suite) -> Found:
    dataset = read_piebench(suite.dataset(folder), suite.image_side)
    records = {record.sample_id: record for record in dataset.records}
    return dataset.digest, lambda sample_id: shown_edit(records[sample_id])


def _translations(group: Group, folder: Path | None, suite: TranslationSuite) -> Found:
    task = group.benchmark.removeprefix(TRANSLATION)
    try:
        protocol = TranslationProtocol(**(group.manifest.scoring.options or {}))
    except TypeError as error:
        raise ValueError(f"{group.runs[0].path}: scoring.options of manifest.json are no protocol: {error}") from error
    source = protocol.dataset(task)
    dataset = read_translation(source, suite.dataset(source, folder), task, suite.classes)
    records = {sample_id: record for record in dataset.records for sample_id in protocol.sample_ids(record.sample_id)}
    return dataset.digest, lambda sample_id: shown_translation(dataset, protocol, records[sample_id])
