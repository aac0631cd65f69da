"""What galleries, figures and comparisons of two runs know of each benchmark."""

from collections.abc import Callable
from dataclasses import dataclass

from reports.runs import Run
from reports.tables import ablations, piebench, translation
from reports.tables.model import Column


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """columns: the scores of single samples. facts: what samples.parquet says of them. fid: of all of a run's images,
    None where it is undefined; without it the benchmark has none."""

    title: str
    columns: tuple[Column, ...]
    facts: tuple[str, ...]
    fid: Callable[[Run], float | None] | None = None


BENCHMARKS = {
    "piebench": Benchmark(
        title="PIE-Bench",
        columns=piebench.COLUMNS,
        facts=piebench.FACTS,
    ),
    **{
        f"translation-{task}": Benchmark(
            title=f"{task.capitalize()} to image",
            columns=tuple(column for column in columns if column.key not in translation.OF_ALL_IMAGES),
            facts=translation.FACTS,
            fid=lambda run: translation.read_fid(run).fid,
        )
        for task, columns in translation.COLUMNS.items()
    },
    "ablation-guidance": Benchmark(title="Guidance", columns=piebench.COLUMNS, facts=piebench.FACTS),
    "ablation-distillation": Benchmark(
        title="Distillation",
        columns=ablations.DISTILLATION_COLUMNS,
        facts=piebench.FACTS,
        fid=lambda run: ablations.read_fid(run)[0],
    ),
}
