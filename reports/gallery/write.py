"""The gallery: one static page of any runs, samples as rows and methods as columns, that opens from the disk.

In its folder: index.html, which holds style, script and all texts and numbers, and gallery-files/<suite>-<benchmark>/
with the pictures, full/<column>/<id>.webp and, of large ones, small/<column>/<id>.webp for the rows.
"""

import hashlib
import json
import os
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.runs.schema import Manifest
from editar.io.atomic import replacing_folder, write_text
from reports.benchmark import BENCHMARKS, known_benchmark
from reports.gallery.files import FILES, file_name, write_pictures
from reports.runs import ReportError, Run, read_run, read_runs
from reports.sheets.sheet import SampleView
from reports.tables import piebench
from reports.tables.comparison import with_networks
from reports.tables.model import DIGITS, Column, scale_and_direction

PAGE = Path(__file__).parent / "page"
STYLES = ("look.css", "rows.css", "viewer.css")
SCRIPTS = ("elements.js", "state.js", "choose.js", "rows.js", "viewer.js", "main.js")
GENERATOR = "EditAR Bench gallery"  # how an earlier gallery is told from other pages


@dataclass(frozen=True, kw_only=True)
class BenchmarkRuns:
    """Runs of one benchmark of one suite, which may be unfinished.

    view: from a sample id to what the data set shows of it; None where there is no data set at hand, then the gallery
    has what the run directories tell.
    """

    runs: Sequence[Run]
    view: Callable[[str], SampleView] | None = None

    @property
    def manifest(self) -> Manifest:
        return self.runs[0].manifest

    @property
    def name(self) -> str:
        return self.manifest.benchmark

    @property
    def key(self) -> str:
        return file_name(f"{self.manifest.suite}-{self.name}")

    @cached_property
    def sample_ids(self) -> list[str]:
        """Of all samples that some run has attempted."""
        return sorted(set[str]().union(*(run.attempted.index for run in self.runs)))

    @cached_property
    def labels(self) -> list[str]:
        """The methods' names; runs of one method are told apart by where they lie."""
        folders: dict[str, list[Path]] = {}
        for run in self.runs:
            folders.setdefault(run.method, []).append(run.path.resolve())
        labels = []
        for run in self.runs:
            alike = folders[run.method]
            common = os.path.commonpath(alike)
            parts = [path.relative_to(common).parts for path in alike]
            needed = next(
                count
                for count in range(max(map(len, parts)) + 1)
                if len({each[:count] for each in parts}) == len(parts)
            )
            where = "/".join(run.path.resolve().relative_to(common).parts[:needed])
            labels.append(f"{run.method} ({where})" if where else run.method)
        return labels


def with_pages(found: Mapping[tuple[str, str], list[Path]]) -> list[list[Path]]:
    """Of runs by suite and benchmark, those that a gallery can show; the others are said to be left out.

    All of them where it can show none, for `read_benchmark_runs` to say why.
    """
    known = {key: run_dirs for key, run_dirs in found.items() if key[1] in BENCHMARKS}
    for _, benchmark in found.keys() - known.keys() if known else ():
        print(f"left out: the runs of {benchmark}, which have no page", file=sys.stderr)
    return list((known or found).values())


def read_benchmark_runs(run_dirs: Sequence[Path], view: Callable[[str], SampleView] | None = None) -> BenchmarkRuns:
    """The runs, checked to belong together. Raises ReportError for those that don't and for unknown benchmarks."""
    run_dirs = list({path.resolve(): path for path in run_dirs}.values())  # one that is named twice is one
    known = known_benchmark(read_run(run_dirs[0]).manifest.benchmark, run_dirs[0])
    columns = [column.key for column in known.columns]
    runs = read_runs(run_dirs, columns, known.facts, allow_partial=True, repeated=True)
    runs.sort(key=lambda run: (run.manifest.position, run.method))
    for run in runs:
        if absent := {"error", "image_sha256"}.difference(run.attempted.columns):
            raise ReportError(f"{run.path}: samples.parquet lacks the columns {', '.join(sorted(absent))}")
    return BenchmarkRuns(runs=runs, view=view)


def write_gallery(benchmarks: Sequence[BenchmarkRuns], out: Path) -> Path:
    """Writes the page and its pictures into the folder `out`; returns the page.

    An earlier gallery there is replaced, whatever else lies there stays. Raises ReportError where another page would be
    overwritten, and for sample ids that can't be names of files.
    """
    page = out / "index.html"
    if page.exists() and GENERATOR not in page.read_text(encoding="utf-8", errors="replace"):
        raise ReportError(f"{page} is no gallery and would be overwritten; give --out another folder")
    out.mkdir(parents=True, exist_ok=True)
    with replacing_folder(out / FILES) as files:
        content = {"files": FILES, "digits": DIGITS, "groups": [_content(each, files) for each in benchmarks]}
    return write_text(page, _html(content))


def _html(content: dict[str, Any]) -> str:
    def joined(names: Sequence[str]) -> str:
        return "\n".join((PAGE / name).read_text(encoding="utf-8") for name in names)

    style = joined(STYLES)
    script = '(() => {\n"use strict";\n' + joined(SCRIPTS) + "})();\n"
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("gallery.html").render(
        generator=GENERATOR,
        title=" · ".join(dict.fromkeys(group["title"] for group in content["groups"])),
        data=Markup(embedded_json(content)),
        style=Markup(style),
        script=Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
    )


def embedded_json(content: Any) -> str:
    """JSON that stays text within a script element, whatever its strings hold."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _digest(text: str) -> str:
    """Of an inline element, for the content security policy."""
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _content(benchmark: BenchmarkRuns, files: Path) -> dict[str, Any]:
    """What the page knows of a benchmark. Scores are in display units, null where undefined; lists go by column,
    method, sample; notes, and reasons for what is missing, by method and sample."""
    columns = with_networks(benchmark.runs[0], BENCHMARKS[benchmark.name].columns)
    written = write_pictures(
        files / benchmark.key, benchmark.runs, benchmark.labels, benchmark.sample_ids, benchmark.view
    )
    types, names = _types(benchmark)
    methods = [
        {"label": label, "folder": folder, "reference": run.is_reference, "note": _note(run)}
        for run, label, folder in zip(benchmark.runs, benchmark.labels, written.folders, strict=True)
    ]
    return {
        "key": benchmark.key,
        "title": BENCHMARKS[benchmark.name].title,
        "suite": benchmark.manifest.suite,
        "facts": _facts(benchmark),
        "side": written.side,
        "small": written.small,
        "inputs": written.inputs,
        "mask": written.mask,
        "methods": methods,
        "baseline": next((n for n, run in enumerate(benchmark.runs) if run.method == piebench.BASELINE), 0),
        "columns": [
            {"key": c.key, "title": _scaled(c.title, c), "full": _scaled(c.full_title, c), "higher": c.higher_is_better}
            for c in columns
        ],
        "ids": benchmark.sample_ids,
        "types": types,
        "type": names,
        "labels": list(written.texts),
        "texts": list(written.texts.values()),
        "notes": [_notes(run, benchmark.sample_ids) for run in benchmark.runs],
        "scores": [[_scores(run, column, benchmark.sample_ids) for run in benchmark.runs] for column in columns],
        **_missing(benchmark, columns, written.errors),
    }


def _scaled(title: str, column: Column) -> str:
    scale, _, direction = scale_and_direction(column).rpartition(" ")
    return f"{title}{scale}\u00a0{direction}"


def _facts(benchmark: BenchmarkRuns) -> str:
    manifest = benchmark.manifest
    return (
        f"{manifest.protocol} · {len(benchmark.sample_ids)} samples · "
        f"seed {manifest.seed} · data {manifest.dataset.digest[:12]}"
    )


def _note(run: Run) -> str:
    """What belongs to the method's name: that it bounds the others, and that its run isn't finished."""
    notes = [run.manifest.card.note]
    if len(run.samples) != run.expected:
        notes.append(f"{len(run.samples)}/{run.expected} done")
    return "; ".join(filter(None, notes))


def _types(benchmark: BenchmarkRuns) -> tuple[list[int], list[str]]:
    """The edit type of each sample as an index into the types' names; nothing of a benchmark that has none."""
    if "edit_type_name" not in BENCHMARKS[benchmark.name].facts:
        return [], []
    known = pd.concat([run.attempted[["edit_type", "edit_type_name"]] for run in benchmark.runs])
    known = known[~known.index.duplicated()].loc[benchmark.sample_ids]
    names = list(dict.fromkeys(known.sort_values("edit_type", kind="stable")["edit_type_name"]))
    return [names.index(name) for name in known["edit_type_name"]], names


def _scores(run: Run, column: Column, sample_ids: Sequence[str]) -> list[float | None]:
    values = (run.samples[column.key] * 10.0**column.power).reindex(sample_ids).round(DIGITS + 1)
    return [None if pd.isna(value) else float(value) for value in values]


def _notes(run: Run, sample_ids: Sequence[str]) -> dict[int, dict[str, str]]:
    """Of the samples, by their places, of which the method says something: texts by label."""
    if "notes" not in run.attempted:
        return {}
    texts = run.attempted["notes"].reindex(sample_ids)
    return {place: json.loads(text) for place, text in enumerate(texts) if isinstance(text, str)}


def _missing(benchmark: BenchmarkRuns, columns: Sequence[Column], errors: Sequence[dict[int, str]]) -> dict[str, Any]:
    """reasons: texts, each once. errors: why there is no picture. undefined: why scores are missing, by column too."""
    reasons: dict[str, int] = {}
    places = {sample_id: number for number, sample_id in enumerate(benchmark.sample_ids)}
    undefined: list[list[dict[int, int]]] = [[{} for _ in benchmark.runs] for _ in columns]
    for m, run in enumerate(benchmark.runs):
        for sample_id, text in run.samples["undefined"].dropna().items():
            known = json.loads(text)
            for c, column in enumerate(columns):
                if column.key in known:
                    reason = reasons.setdefault(str(known[column.key]), len(reasons))
                    undefined[c][m][places[str(sample_id)]] = reason
    numbered = [{place: reasons.setdefault(text, len(reasons)) for place, text in each.items()} for each in errors]
    return {"errors": numbered, "undefined": undefined, "reasons": list(reasons)}
