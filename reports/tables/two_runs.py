"""Two runs beside each other: what differs in their settings, and in the numbers of the samples that both have."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from reports.benchmark import known_benchmark
from reports.runs import ReportError, Run, read_run
from reports.tables import translation
from reports.tables.comparison import with_networks
from reports.tables.format import markdown_table, markdown_text
from reports.tables.mean_iou import mean_iou
from reports.tables.model import SIGNIFICANT, Column, number
from reports.tables.statistics import LEVEL, REPLICATES, TOO_FEW, Estimate, paired_difference

LISTED = 10  # samples at most, of a column or of one run alone
LONGEST = 80  # characters of a setting
# The parts of a manifest that say what a run is; the others say what became of it.
SETTINGS = ("suite", "benchmark", "method", "protocol", "dataset", "method_settings", "scoring", "seed")
VERSIONS = ("packages", "python", "platform", "git")
DEVICE = ("device",)
# Where these differ, samples of the same name are not the same, or are not measured in the same way.
SAME = ("suite", "benchmark", "protocol", "dataset.digest")
# Of an image alone; a table's mIoU is of the pixels of all images together.
IMAGE_IOU = Column(
    key="image_iou", title="IoU of an image", power=2, higher_is_better=True, backbone="segmentation"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two runs of the same samples. columns: those that both measured with the same networks; left_out: the others."""

    first: Run
    second: Run
    columns: tuple[Column, ...]
    left_out: tuple[str, ...]

    def values(self, column: Column) -> pd.DataFrame:
        """a, b and difference b - a of the samples that are done in both and defined in both, in the table's scale."""
        scores = [run.samples[column.key].astype("float64") * 10**column.power for run in (self.first, self.second)]
        frame = pd.DataFrame({"a": scores[0], "b": scores[1]})
        return frame.assign(difference=frame["b"] - frame["a"]).dropna()


def compare(first: Path, second: Path, *, columns: Sequence[str] = (), prompts: Mapping[str, str] | None = None) -> str:
    """The comparison as Markdown. columns: whose most moved samples are shown, the benchmark's first one without any.
    prompts: texts by sample id, for these.

    Runs of other data or another protocol are compared in their settings alone, which the text then says first.
    Raises ReportError for what is no run, and for a column that the runs don't have.
    """
    a, b = read_run(first), read_run(second)
    leaves = [run.manifest.leaves() for run in (a, b)]
    apart = [name for name in SAME if leaves[0].get(name) != leaves[1].get(name)]
    parts = [f"# {_text(a.method)} and {_text(b.method)}", f"- A: {_text(first)}\n- B: {_text(second)}"]
    if apart:
        parts.append(
            f"The numbers can't be compared, because the runs differ in {', '.join(apart)}. Only the settings are."
        )
    parts += [_settings(*leaves)]
    if not apart:
        parts += list(_numbers(_pair(a, b), columns, prompts or {}))
    return "\n\n".join(parts) + "\n"


# --- settings


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    same = a.get("fingerprint") == b.get("fingerprint")
    says = "equal: their numbers have to be" if same else "different"
    parts = [f"## Settings\n\nThe fingerprints are {says}."]
    for title, tops in (("Settings", SETTINGS), ("Versions", VERSIONS), ("Device", DEVICE)):
        names = [name for name in sorted(a.keys() | b.keys()) if name.partition(".")[0] in tops]
        both = [(name, _setting(a, name), _setting(b, name)) for name in names]
        rows = [tuple(map(_cut, row)) for row in both if row[1] != row[2]]
        parts.append(markdown_table((title, "A", "B"), rows) if rows else f"{title}: no difference.")
    return "\n\n".join(parts)


def _setting(leaves: Mapping[str, Any], name: str) -> str:
    return json.dumps(leaves[name], ensure_ascii=False) if name in leaves else "absent"


def _cut(text: str) -> str:
    return _text(text if len(text) <= LONGEST else text[:LONGEST] + "...")


# --- numbers


def _pair(a: Run, b: Run) -> Pair:
    a, b = map(_with_image_iou, (a, b))
    networks = [run.manifest.scoring.backbones for run in (a, b)]
    columns, left_out = [], []
    for column in _columns(a):
        same = column.backbone is None or networks[0].get(column.backbone) == networks[1].get(column.backbone)
        if same and all(column.key in run.attempted for run in (a, b)):
            columns.append(column)
        else:
            left_out.append(column.title)
    if "source_id" not in a.attempted:
        raise ReportError(f"{a.path}: samples.parquet lacks the column source_id; start the benchmark again")
    return Pair(first=a, second=b, columns=with_networks(a, columns), left_out=tuple(left_out))


def _columns(run: Run) -> tuple[Column, ...]:
    """Of single samples."""
    known = known_benchmark(run.manifest.benchmark, run.path).columns
    return (*known, IMAGE_IOU) if run.manifest.benchmark == "translation-segmentation" else known


def _with_image_iou(run: Run) -> Run:
    """Where the samples have counts of pixels."""
    if run.manifest.benchmark != "translation-segmentation" or "counts" not in run.attempted:
        return run
    iou = pd.Series(mean_iou(translation.class_counts(run, run.samples.index)), run.samples.index)
    return replace(run, attempted=run.attempted.assign(**{IMAGE_IOU.key: iou}))


def _numbers(pair: Pair, columns: Sequence[str], prompts: Mapping[str, str]) -> Iterator[str]:
    known = {column.key: column for column in pair.columns}
    if unknown := [name for name in columns if name not in known]:
        raise ReportError(f"--column {', '.join(unknown)}: these runs can be compared in {', '.join(known) or 'none'}")
    if left_out := ", ".join(pair.left_out):
        yield f"Left out, because not both runs have them of the same networks: {left_out}."
    yield "\n\n".join(("## Samples", _samples(pair)))
    yield "\n\n".join(("## Numbers", *_differences(pair)))
    for name in columns or list(known)[:1]:
        yield _moved(pair, known[name], prompts)


def _samples(pair: Pair) -> str:
    a, b = pair.first, pair.second
    lines = [f"- done in both: {len(a.samples.index.intersection(b.samples.index))}"]
    for name, here, there in (("A", a, b), ("B", b, a)):
        alone = list(here.samples.index.difference(there.samples.index))
        more = [f"and {len(alone) - LISTED} more"] if len(alone) > LISTED else []
        listed = _text(": " + ", ".join([*alone[:LISTED], *more])) if alone else ""
        lines.append(f"- done in {name} only: {len(alone)}{listed}")
    images = [run.attempted["image_sha256"].dropna() for run in (a, b)]
    shared = images[0].index.intersection(images[1].index)
    different = int((images[0][shared] != images[1][shared]).sum())
    lines.append(f"- images whose files differ: {different} of {len(shared)}")
    return "\n".join(lines)


def _differences(pair: Pair) -> Iterator[str]:
    rows, too_few = [], False
    for column in pair.columns:
        values = pair.values(column)
        sources = pair.first.attempted["source_id"]
        difference = paired_difference(values["b"], values["a"], sources)
        too_few |= difference.too_few
        means = (number(values[side].mean()) if len(values) else "–" for side in "ab")
        p = "–" if difference.p is None else f"{difference.p:.4f}"
        rows.append((_title(column), str(len(values)), *means, _interval(difference), p, _verdict(difference, column)))
    yield markdown_table(("Column", "pairs", "A", "B", "B - A", "p", "better"), rows)
    yield (
        f"Means over the samples that are defined in both. B - A is paired by sample, with {LEVEL:.0%} bootstrap-t "
        f"intervals clustered by source image ({REPLICATES} replicates); p is two-sided, of a test by sign flips of "
        f"source images, each column by itself, and better is the run that it favours where p is below {SIGNIFICANT}."
        f"{' ' * too_few}{TOO_FEW * too_few}"
    )
    fids = [_fid(run) for run in (pair.first, pair.second)]
    if any(each is not None for each in fids):
        yield "FID, of all images together and without an interval: " + ", ".join(
            f"{name} {'–' if each is None else number(each)}" for name, each in zip("AB", fids, strict=True)
        )


def _fid(run: Run) -> float | None:
    read = known_benchmark(run.manifest.benchmark, run.path).fid
    return read(run) if read else None


def _interval(estimate: Estimate) -> str:
    if estimate.mean is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return number(estimate.mean)
    return f"{number(estimate.mean)} [{number(estimate.low)}, {number(estimate.high)}]"


def _verdict(difference: Estimate, column: Column) -> str:
    if difference.mean is None or difference.p is None or difference.p >= SIGNIFICANT:
        return "–"
    return "B" if (difference.mean > 0) == column.higher_is_better else "A"


def _moved(pair: Pair, column: Column, prompts: Mapping[str, str]) -> str:
    """The samples with the largest differences, in either direction."""
    values = pair.values(column)
    values = values[values["difference"] != 0]
    order = sorted(values.index, key=lambda name: (-abs(values.at[name, "difference"]), name))[:LISTED]
    head = f"## Moved most: {_title(column)}"
    if not order:
        return f"{head}\n\nNo sample moved."
    rows = [
        (_text(name), *map(number, values.loc[name, ["a", "b", "difference"]]), _text(prompts.get(name, "–")))
        for name in order
    ]
    note = "" if prompts else "\n\nThe data set that has the prompts was not read: give it as --data DIR."
    return f"{head}\n\n{markdown_table(('Sample', 'A', 'B', 'B - A', 'Prompt'), rows)}{note}"


# --- Markdown


def _title(column: Column) -> str:
    scale = f" ×10^{column.power}" if column.power else ""
    return f"{_text(column.full_title)}{scale} ({'higher' if column.higher_is_better else 'lower'} is better)"


def _text(value: object) -> str:
    return markdown_text(str(value))
