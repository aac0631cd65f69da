"""The PIE-Bench tables: published and measured rows, scores by edit type, differences between methods."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from reports import markup
from reports.runs import Run, read_runs
from reports.statistics import LEVEL, REPLICATES, Estimate, mean_interval, paired_difference
from reports.tables import Block, Column, Row, Table

COLUMNS = (
    Column(key="structure_distance", title="Structure distance", power=3, higher_is_better=False, backbone="structure"),
    Column(key="psnr", title="PSNR", power=0, higher_is_better=True),
    Column(key="lpips", title="LPIPS", power=3, higher_is_better=False, backbone="perceptual"),
    Column(key="mse", title="MSE", power=4, higher_is_better=False),
    Column(key="ssim", title="SSIM", power=2, higher_is_better=True),
    Column(key="clip_whole", title="CLIP whole", power=2, higher_is_better=True, backbone="clip"),
    Column(key="clip_edited", title="CLIP edited", power=2, higher_is_better=True, backbone="clip"),
)
# Rows that bound the others and never carry a mark.
REFERENCES = {
    "copy-source": "nothing edited, the floor for editing and the ceiling for preservation",
    "vq-reconstruction": "the ceiling of EditAR's tokenizer",
}
MARKS = "Bold is best and underlined second best within a block, references left out."
KINDS = {"editar": "feed-forward"}
PUBLISHED = Path(__file__).parent / "published" / "table3_piebench.csv"
SOURCE = "arXiv 2501.04699, Table 3"
PROTOCOL = "pie-bench/v1"
RECORDS = 700  # the whole of PIE-Bench, over which the published means go
BASELINE = "editar"  # differences are taken to this method where it is there


def render(run_dirs: Sequence[Path], out: Path, allow_partial: bool = False) -> list[Path]:
    """Write piebench, piebench-by-type and piebench-differences as .md, .tex and .csv, and tables.tex that shows them.

    Raises ReportError for runs that do not belong into one table, and for unfinished ones unless `allow_partial`, which
    averages what is done and prints n/N. Returns the files written.
    """
    runs = read_runs(run_dirs, [column.key for column in COLUMNS], allow_partial=allow_partial)
    pages = {"piebench": _comparison(runs), "piebench-by-type": [_by_type(runs)]}
    if len(runs) > 1:
        pages["piebench-differences"] = [_differences(runs)]
    out.mkdir(parents=True, exist_ok=True)
    if len(runs) == 1:
        for path in out.glob("piebench-differences.*"):  # of an earlier rendering
            path.unlink()
    written = []
    for name, tables in pages.items():
        written.append(_write(out / f"{name}.md", "\n".join(map(markup.to_markdown, tables))))
        written.append(_write(out / f"{name}.tex", "\n".join(map(markup.to_latex, tables))))
        written.append(_write(out / f"{name}.csv", markup.to_csv(tables)))
    written.append(_write(out / "tables.tex", markup.latex_document(list(pages))))
    return written


def _write(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")  # several shards may end at once
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)
    return path


def _comparison(runs: Sequence[Run]) -> list[Table]:
    """One table where the published columns mean the same as the measured ones, else two that say so."""
    first = runs[0]
    columns = _columns(first.manifest)
    measured = Block(
        label="Measured", rows=tuple(_row(run, run.samples, run.expected) for run in runs), facts=_facts(first)
    )
    published = Block(label=f"Published ({SOURCE})", rows=tuple(_published_rows()), facts={"source": SOURCE})
    caption = f"PIE-Bench, measured. {_conditions(first)}"
    notes = (MARKS, *_row_notes(runs), *_undefined_notes(runs))
    if not (differences := _not_as_published(first.manifest, columns)):
        caption = f"PIE-Bench, published and measured. Measured rows: {_conditions(first)}"
        return [Table(caption=caption, columns=columns, blocks=(published, measured), notes=notes)]
    apart = f"Not comparable with the measured rows, which have {', '.join(differences)}."
    caption_published = f"PIE-Bench, published with EditAR ({SOURCE}). {apart}"
    return [
        Table(caption=caption, columns=columns, blocks=(measured,), notes=notes),
        Table(caption=caption_published, columns=COLUMNS, blocks=(published,), notes=(MARKS,)),
    ]


def _columns(manifest: dict[str, Any]) -> tuple[Column, ...]:
    """The columns, with the name of the network where it is not the official one."""
    backbones = manifest["scoring"]["backbones"]
    return tuple(
        column
        if column.backbone is None or backbones[column.backbone]["official"]
        else replace(column, network=backbones[column.backbone]["name"])
        for column in COLUMNS
    )


def _not_as_published(manifest: dict[str, Any], columns: tuple[Column, ...]) -> list[str]:
    """What keeps the published numbers out of the measured ones' columns."""
    expected = manifest["counts"]["expected"]
    reasons = {
        "other images": manifest["suite"] != "paper",
        "other scoring networks": columns != COLUMNS,
        f"the protocol {manifest['protocol']}": manifest["protocol"] != PROTOCOL,
        f"{expected} records instead of {RECORDS}": expected != RECORDS,
    }
    return [reason for reason, holds in reasons.items() if holds]


def _row(run: Run, samples: pd.DataFrame, expected: int) -> Row:
    """`samples` are the run's own or some of them, `expected` counts how many there should be."""
    estimates = (mean_interval(samples[column.key], samples["source_id"]) for column in COLUMNS)
    return _measured_row(run.method, estimates, len(samples), expected)


def _measured_row(method: str, estimates: Iterable[Estimate], done: int, expected: int) -> Row:
    return Row(
        label=method,
        kind="reference" if method in REFERENCES else KINDS.get(method, ""),
        samples=str(done) if done == expected else f"{done}/{expected}",
        estimates=tuple(e.scaled(10**column.power) for e, column in zip(estimates, COLUMNS, strict=True)),
        done=done,
        expected=expected,
        reference=method in REFERENCES,
    )


def _published_rows() -> Iterator[Row]:
    for record in pd.read_csv(PUBLISHED).to_dict("records"):
        names = (f"{column.key}_e{column.power}" if column.power else column.key for column in COLUMNS)
        yield Row(
            label=record["method"],
            kind=f"{record['family']}, {record['t2i_model']}",
            samples="",
            estimates=tuple(Estimate(mean=float(record[name])) for name in names),
        )


def _by_type(runs: Sequence[Run]) -> Table:
    """A block for each edit type; the type of a record is known as soon as one method has attempted it."""
    records = pd.concat([run.attempted[["edit_type", "edit_type_name"]] for run in runs])
    records = records[~records.index.duplicated()]
    blocks = []
    for (edit_type, name), group in records.groupby(["edit_type", "edit_type_name"]):
        rows = tuple(_row(run, run.samples[run.samples["edit_type"] == edit_type], len(group)) for run in runs)
        blocks.append(Block(label=name, rows=rows, facts={**_facts(runs[0]), "edit_type": edit_type}))
    notes = [MARKS, *_row_notes(runs), *_undefined_notes(runs)]
    if unknown := runs[0].expected - len(records):
        notes.append(f"{unknown} records were reached by no method and are in no row here.")
    return Table(
        caption=f"PIE-Bench by edit type, measured. {_conditions(runs[0])}",
        columns=_columns(runs[0].manifest),
        blocks=tuple(blocks),
        notes=tuple(notes),
    )


def _differences(runs: Sequence[Run]) -> Table:
    baseline = next((run for run in runs if run.method == BASELINE), runs[0])
    rows = []
    for run in runs:
        if run is not baseline:
            sources = run.samples["source_id"]
            pairs = len(sources.index.intersection(baseline.samples.index))
            estimates = (paired_difference(run.samples[c.key], baseline.samples[c.key], sources) for c in COLUMNS)
            rows.append(_measured_row(run.method, estimates, pairs, run.expected))
    label = f"Row minus {baseline.method}"
    return Table(
        caption=f"PIE-Bench, differences between methods ({label.lower()}), paired by sample. {_conditions(baseline)}",
        columns=_columns(baseline.manifest),
        blocks=(Block(label=label, rows=tuple(rows), facts=_facts(baseline)),),
        notes=(*_row_notes(runs), *_undefined_notes(runs)),
        marked=False,
    )


def _facts(run: Run) -> dict[str, object]:
    manifest = run.manifest
    return {
        **{"source": "measured", "suite": manifest["suite"], "protocol": manifest["protocol"]},
        **{"precision": manifest["scoring"]["precision"], "seed": manifest["seed"]},
        "dataset_digest": manifest["dataset"]["digest"],
    }


def _conditions(run: Run) -> str:
    facts = _facts(run)
    return (
        f"Protocol {facts['protocol']}, suite {facts['suite']}, scoring networks in {facts['precision']}, "
        f"seed {facts['seed']}, {run.expected} records of data set {str(facts['dataset_digest'])[:12]}. "
        f"Means with {LEVEL:.0%} bootstrap intervals, clustered by source image, {REPLICATES} replicates."
    )


def _row_notes(runs: Sequence[Run]) -> list[str]:
    return [f"{run.method} is a reference: {REFERENCES[run.method]}." for run in runs if run.method in REFERENCES]


def _undefined_notes(runs: Sequence[Run]) -> list[str]:
    """Why values are missing, counted in samples; a cell that averages fewer values prints its own n."""
    reasons: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        for sample_id, text in run.samples["undefined"].dropna().items():
            for column, reason in json.loads(text).items():
                reasons.setdefault((reason, column), set()).add(str(sample_id))
    titles = {column.key: column.title for column in COLUMNS}
    notes: dict[tuple[str, int], list[str]] = {}
    for (reason, column), samples in reasons.items():
        notes.setdefault((reason, len(samples)), []).append(titles.get(column, column))
    return [f"{', '.join(names)} undefined for {count} samples: {reason}." for (reason, count), names in notes.items()]
