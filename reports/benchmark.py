"""The table of benchmarks: what their reports, galleries and comparisons of two runs know of each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reports.committed import Placement
from reports.runs import ReportError, Run, read_run
from reports.tables import ablations, piebench, translation
from reports.tables.model import Column
from reports.tables.report import write_cost


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """columns: the scores of single samples. facts: what samples.parquet says of them.
    render: (paths, out, allow_partial, notes=..., plots=...) -> the files written, see `piebench.render`. fid: of all
    of a run's images, None where it is undefined; without it the benchmark has none."""

    title: str
    columns: tuple[Column, ...]
    facts: tuple[str, ...]
    render: Callable[..., list[Path]]
    fid: Callable[[Run], float | None] | None = None


BENCHMARKS = {
    "piebench": Benchmark(
        title="PIE-Bench",
        columns=piebench.COLUMNS,
        facts=piebench.FACTS,
        render=piebench.render,
    ),
    **{
        f"translation-{task}": Benchmark(
            title=f"{task.capitalize()} to image",
            columns=tuple(column for column in columns if column.key not in translation.OF_ALL_IMAGES),
            facts=translation.FACTS,
            render=partial(translation.render, task=task),
            fid=lambda run: translation.read_fid(run).fid,
        )
        for task, columns in translation.COLUMNS.items()
    },
    "ablation-guidance": Benchmark(
        title="Guidance",
        columns=piebench.COLUMNS,
        facts=piebench.FACTS,
        render=partial(ablations.render, axis="guidance"),
    ),
    "ablation-distillation": Benchmark(
        title="Distillation",
        columns=ablations.DISTILLATION_COLUMNS,
        facts=piebench.FACTS,
        render=partial(ablations.render, axis="distillation"),
        fid=lambda run: ablations.read_fid(run)[0],
    ),
}


def known_benchmark(name: str, path: Path) -> Benchmark:
    """The benchmark of the runs or summaries in `path`. Raises ReportError where it has no report."""
    if name not in BENCHMARKS:
        raise ReportError(f"{path} is of the benchmark {name!r}; there are reports of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def render(name: str, place: Placement, *, allow_partial: bool, plots: bool) -> list[Path]:
    """Writes the report of a benchmark's runs, with the committed rows beside theirs; returns the files."""
    benchmark = known_benchmark(name, place.rows[0])
    files = benchmark.render(place.rows, place.folder, allow_partial, notes=place.notes, plots=plots)
    # A summary has no cost, and may stand for a run that has one.
    cost = write_cost([read_run(path) for path in place.run_dirs], place.folder, name)
    return list(dict.fromkeys([*files, *cost]))
