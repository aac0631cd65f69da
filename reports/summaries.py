"""Committed summaries of runs: what the tables need of a run directory, as text that stays the same.

A summary is one JSON file `<folder>/<benchmark>/<method>.json`, version 1, UTF-8, a sample to a line. Keys:
    summary_version     1
    manifest            the part of manifest.json that says which numbers these are (KEPT); nothing that names a machine
                        or that changes while the numbers stay
    fid                 fid.json, null where the run has none
    samples             one object a sample, sorted by sample_id: the columns of samples.parquet but for seconds, status
                        and error (all samples are done). Scores are in raw units with all their digits; undefined and
                        counts are JSON in a string, as in the Parquet file
`reports.runs.read_runs` reads a summary wherever it reads a run directory.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from editar.io.atomic import write_text
from reports.runs import SHARED, SUMMARY_VERSION, ReportError, Run, check_complete, read_run

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FOLDER = "summaries"  # below the folder of the tables
KEPT = (
    "schema_version", "suite", "benchmark", "method", "card", "position", "protocol", "dataset", "method_settings",
    "scoring", "seed", "packages", "fingerprint", "counts",
)  # fmt: skip
DROPPED = ("seconds", "status", "error")
NO_NUMBERS = ("image_sha256",)  # may differ where all numbers are equal


def summary_files(folder: Path, benchmark: str | None = None) -> list[Path]:
    """The summaries beside the tables in `folder`, of one benchmark or of all, sorted."""
    return sorted((folder / FOLDER).glob(f"{benchmark or '*'}/*.json"))


def write_summary(run: Run, folder: Path) -> Path:
    """Writes the run's summary beside the tables in `folder`; returns its path. Refuses a run with missing samples."""
    check_complete(run)
    manifest = run.manifest.to_json()
    content = {
        "summary_version": SUMMARY_VERSION,
        "manifest": {name: manifest[name] for name in KEPT} | {"device": {"type": run.manifest.device.type}},
        "fid": None if run.fid is None else run.fid.to_json(),
    }
    try:
        head = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
        lines = [json.dumps(sample, ensure_ascii=False, allow_nan=False) for sample in samples_of(run)]
    except ValueError as error:
        raise ReportError(f"{run.path} has a number that JSON has none for ({error}); run it again") from error
    for name in (run.manifest.benchmark, run.method):
        if not NAME.fullmatch(name):
            raise ReportError(
                f"{run.path}: {name!r} cannot be the name of a file; it is a benchmark's or a method's name"
            )
    path = folder / FOLDER / run.manifest.benchmark / f"{run.method}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, head + ',\n "samples": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n")


def samples_of(run: Run) -> list[dict[str, Any]]:
    """The samples as plain values, a missing one being None."""
    frame = run.samples.drop(columns=[name for name in DROPPED if name in run.samples]).reset_index()
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def same_setting(run: Run, other: Run) -> bool:
    """Whether the two may stand in one table: suite, protocol, data, scoring networks, seed and number of records."""
    return all(run.manifest.value(field) == other.manifest.value(field) for field in SHARED)


def same_numbers(run: Run, other: Run) -> bool:
    """Whether two runs of a method give the same rows, to the last digit."""

    def numbers(each: Run) -> tuple[Any, ...]:
        samples = [{k: v for k, v in sample.items() if k not in NO_NUMBERS} for sample in samples_of(each)]
        return samples, each.fid and replace(each.fid, generated="")

    return len(run.samples) == run.expected and numbers(run) == numbers(other)


def take(run_dirs: Sequence[Path], folder: Path) -> list[Path]:
    """Makes or replaces the summaries of these runs beside the tables in `folder`; returns their paths."""
    return [write_summary(read_run(path), folder) for path in run_dirs]
