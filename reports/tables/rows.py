"""From runs to rows: means of their samples, and what captions and notes say of them."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from reports.runs import Run
from reports.tables.model import Column, Row
from reports.tables.statistics import LEVEL, REPLICATES, Estimate, mean_interval


def with_networks(run: Run, columns: Sequence[Column]) -> tuple[Column, ...]:
    """The columns, with the name of the run's network where it is not the official one."""
    backbones = run.manifest.scoring.backbones
    return tuple(
        column
        if column.backbone is None or backbones[column.backbone].official
        else replace(column, network=backbones[column.backbone].name)
        for column in columns
    )


def measured_row(
    label: str,
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
        label=label,
        kind="reference" if reference else kind,
        samples=str(done) if done == expected else f"{done}/{expected}",
        estimates=tuple(e.scaled(10**column.power) for e, column in zip(estimates, columns, strict=True)),
        done=done,
        expected=expected,
        reference=reference,
        published_as=published_as,
    )


def mean_of(samples: pd.DataFrame, column: str) -> Estimate:
    """The mean of a score with its interval, and the reasons for its undefined values, counted in samples."""
    undefined = (json.loads(text) for text in samples["undefined"].dropna())
    reasons = Counter(each[column] for each in undefined if column in each)
    note = "; ".join(f"{count} undefined: {reason}" for reason, count in reasons.items())
    return replace(mean_interval(samples[column], samples["source_id"]), note=note)


def facts(run: Run) -> dict[str, object]:
    """What all runs of a table share, for the CSV."""
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
