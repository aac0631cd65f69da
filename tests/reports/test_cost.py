"""The table of what methods took: beside the others and not among them."""

import pandas as pd

from reports.tables.piebench import render

COST = {
    "load_seconds": 1.25,
    "seconds_per_sample": 0.0625,
    "samples": 12,
    "peak_memory_bytes": 900_000_000,
    "before_bytes": 250_000_000,
    "memory": "main",
}
DEVICE = {"type": "cpu", "name": "x86_64"}


def test_cost_is_a_table_of_its_own(write_run, tmp_path):
    measured = write_run("editar", manifest={"cost": COST, "device": DEVICE})
    runs = [measured, write_run("old", seed=1)]
    written = render(runs, tmp_path / "out")
    assert {path.name for path in written} >= {"piebench-cost.md", "piebench-cost.csv"}
    text = (tmp_path / "out" / "piebench-cost.md").read_text()
    assert "| editar | cpu x86\\_64 | 12 | 1.25 | 0.0625 | 900 | 250 | main |" in text and "old" not in text
    row = pd.read_csv(tmp_path / "out" / "piebench-cost.csv").iloc[0]
    assert (row["seconds_per_image"], row["peak_memory_bytes"], row["images"]) == (0.0625, 900_000_000, 12)
    assert "cost" not in (tmp_path / "out" / "tables.tex").read_text()


def test_other_tables_do_not_move_with_the_cost(write_run, tmp_path):
    runs = [
        write_run("editar", folder=f"{cost['samples']}", manifest={"cost": cost, "device": DEVICE})
        for cost in (COST, {**COST, "samples": 11, "load_seconds": 2.0})
    ]
    first, second = (render([run], tmp_path / run.name) for run in runs)
    same = [path.read_bytes() == other.read_bytes() for path, other in zip(first, second, strict=True)]
    assert [path.name for path, equal in zip(first, same, strict=True) if not equal] == [
        "piebench-cost.md", "piebench-cost.csv",
    ]  # fmt: skip


def test_runs_without_it_leave_no_old_table(write_run, tmp_path):
    render([write_run("editar", manifest={"cost": COST, "device": DEVICE})], tmp_path / "out")
    render([write_run("other")], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*cost*"))
