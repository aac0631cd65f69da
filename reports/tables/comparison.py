"""What the tables of all benchmarks share: rows of runs, published rows beside or below them, notes, files."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks.runs.schema import Manifest
from editar.io.atomic import write_text
from reports.runs import Run
from reports.tables import markup
from reports.tables.html import to_html
from reports.tables.model import Block, Column, Row, Table
from reports.tables.statistics import LEVEL, REPLICATES, Estimate

MARKS = "Bold is best and underlined second best within a block, references left out."
KINDS_OF_FILE = ("md", "tex", "csv", "html")
DOCUMENT = "tables.tex"  # shows all tables of its folder
TABLES = ("piebench*.tex", "translation-*.tex", "ablation-*.tex")


def write_pages(
    pages: Mapping[str, Sequence[Table]],
    out: Path,
    *,
    notes: Sequence[str] = (),
    figures: Mapping[str, Sequence[str]] | None = None,
) -> list[Path]:
    """Writes each page as .md, .tex, .csv and .html, and the LaTeX document; returns the files written.

    Of a page without tables what an earlier rendering left is removed. notes: are put below the first table of each
    page. figures: by page, the names of plots in `out` that its HTML shows.
    """
    out.mkdir(parents=True, exist_ok=True)
    there = [name for name, tables in pages.items() if tables]
    written = []
    for name, tables in pages.items():
        if not tables:
            for kind in KINDS_OF_FILE:
                (out / f"{name}.{kind}").unlink(missing_ok=True)
            continue
        tables = [replace(tables[0], notes=(*tables[0].notes, *notes)), *tables[1:]]
        texts = {
            "md": "\n".join(map(markup.to_markdown, tables)),
            "tex": "\n".join(map(markup.to_latex, tables)),
            "csv": markup.to_csv(tables),
            "html": to_html(tables, name, there, (figures or {}).get(name, ())),
        }
        written += [write_text(out / f"{name}.{kind}", texts[kind]) for kind in KINDS_OF_FILE]
    names = sorted(path.stem for pattern in TABLES for path in out.glob(pattern))
    written.append(write_text(out / DOCUMENT, markup.latex_document(names)))
    return written


def shown_columns(manifest: Manifest, columns: Sequence[Column]) -> tuple[Column, ...]:
    """The columns, with the name of the network where it is not the official one."""
    backbones = manifest.scoring.backbones
    return tuple(
        column
        if column.backbone is None or backbones[column.backbone].official
        else replace(column, network=backbones[column.backbone].name)
        for column in columns
    )


def not_as_published(
    manifest: Manifest, columns: Sequence[Column], shown: Sequence[Column], protocol: str, records: int
) -> list[str]:
    """What keeps the published numbers, of `records` records under `protocol`, out of the measured ones' columns."""
    expected = manifest.counts.expected
    reasons = {
        "other images": manifest.suite != "paper",
        "other scoring networks": tuple(shown) != tuple(columns),
        f"the protocol {manifest.protocol}": manifest.protocol != protocol,
        f"{expected} records instead of {records}": expected != records,
    }
    return [reason for reason, holds in reasons.items() if holds]


def compared(
    title: str,
    published: Block,
    measured: Block,
    *,
    columns: Sequence[Column],
    shown: Sequence[Column],
    conditions: str,
    differences: Sequence[str],
    notes: Sequence[str],
) -> list[Table]:
    """One table where the published columns mean the same as the measured ones, else two that say so.

    columns, shown: of published and of measured rows. differences: why they are not the same, see `not_as_published`.
    """
    if not differences:
        caption = f"{title}, published and measured. Measured rows: {conditions}"
        return [Table(caption=caption, columns=tuple(shown), blocks=(published, measured), notes=tuple(notes))]
    source = published.facts["source"]
    why = f"Not comparable with the measured rows, which have {', '.join(differences)}."
    apart = f"{why} So there is no deviation from the published values."
    return [
        Table(caption=f"{title}, measured. {conditions}", columns=tuple(shown), blocks=(measured,), notes=tuple(notes)),
        Table(
            caption=f"{title}, published with EditAR ({source}). {apart}",
            columns=tuple(columns),
            blocks=(published,),
            notes=(MARKS,),
        ),
    ]


def deviations(
    title: str,
    published: Block,
    measured: Block,
    *,
    shown: Sequence[Column],
    conditions: str,
    differences: Sequence[str],
) -> list[Table]:
    """Measured minus published, of the rows that the paper has; none where the columns mean different things.

    A published number comes without an interval, so the interval is that of the measured mean, moved by it.
    """
    paper = {row.published_as: row for row in published.rows}
    rows = tuple(
        replace(
            row,
            estimates=tuple(
                _deviation(ours, theirs)
                for ours, theirs in zip(row.estimates, paper[row.published_as].estimates, strict=True)
            ),
        )
        for row in measured.rows
        if row.published_as in paper and row.done
    )
    if differences or not rows:
        return []
    return [
        Table(
            caption=f"{title}, deviation from the published values ({published.facts['source']}). {conditions}",
            columns=tuple(shown),
            blocks=(Block(label="Measured minus published", rows=rows, facts=measured.facts),),
            notes=(
                "Published values are taken as exact: the paper gives no intervals. The intervals are the measured.",
            ),
            marked=False,
        )
    ]


def _deviation(measured: Estimate, published: Estimate) -> Estimate:
    if measured.mean is None or published.mean is None:
        return replace(measured, mean=None, low=None, high=None, note=measured.note or "not published")
    by = published.mean
    moved = {name: None if (x := getattr(measured, name)) is None else x - by for name in ("mean", "low", "high")}
    return replace(measured, **moved, note="; ".join(filter(None, [f"published {by:g}", measured.note])))


def measured_row(
    method: str,
    estimates: Iterable[Estimate],
    columns: Sequence[Column],
    *,
    kind: str,
    done: int,
    expected: int,
    reference: bool = False,
    published_as: str = "",
) -> Row:
    """`estimates` are in raw units, one for each column."""
    return Row(
        label=method,
        kind="reference" if reference else kind,
        samples=str(done) if done == expected else f"{done}/{expected}",
        estimates=tuple(e.scaled(10**column.power) for e, column in zip(estimates, columns, strict=True)),
        done=done,
        expected=expected,
        reference=reference,
        published_as=published_as,
    )


def explained(estimate: Estimate, samples: pd.DataFrame, column: str) -> Estimate:
    """The estimate of a column with the reasons for its undefined values, counted in samples."""
    undefined = (json.loads(text) for text in samples["undefined"].dropna())
    reasons = Counter(each[column] for each in undefined if column in each)
    return replace(estimate, note="; ".join(f"{count} undefined: {reason}" for reason, count in reasons.items()))


def facts(run: Run) -> dict[str, object]:
    manifest = run.manifest
    return {
        **{"source": "measured", "suite": manifest.suite, "protocol": manifest.protocol},
        **{"precision": manifest.scoring.precision, "seed": manifest.seed},
        "dataset_digest": manifest.dataset.digest,
    }


def conditions(run: Run, counted: str = "records") -> str:
    """A sentence for the caption. counted: what the run's samples are."""
    known = facts(run)
    return (
        f"Protocol {known['protocol']}, suite {known['suite']}, scoring networks in {known['precision']}, "
        f"seed {known['seed']}, {run.expected} {counted} of data set {str(known['dataset_digest'])[:12]}. "
        f"Means with {LEVEL:.0%} bootstrap intervals, clustered by source image, {REPLICATES} replicates."
    )


def undefined_notes(runs: Sequence[Run], columns: Sequence[Column]) -> list[str]:
    """Why values are missing, counted in samples; a cell that averages fewer values prints its own n."""
    reasons: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        for sample_id, text in run.samples["undefined"].dropna().items():
            for column, reason in json.loads(text).items():
                reasons.setdefault((reason, column), set()).add(str(sample_id))
    titles = {column.key: column.title for column in columns}
    notes: dict[tuple[str, int], list[str]] = {}
    for (reason, column), samples in reasons.items():
        notes.setdefault((reason, len(samples)), []).append(titles.get(column, column))
    everything = runs[0].expected
    return [
        f"{', '.join(names)} undefined for {'all ' if count == everything else ''}{count} "
        f"sample{'s' if count != 1 else ''}: {reason}."
        for (reason, count), names in notes.items()
    ]
