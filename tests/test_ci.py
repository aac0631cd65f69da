"""What CI does: the workflow calls sessions that exist, and a small run scores what is committed."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.tools.small_run import main
from reports.committed import write_summary
from reports.reproduction import reproduction
from reports.runs import ReportError, read_run

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return yaml.safe_load(WORKFLOW.read_text())


def test_the_workflow_calls_sessions_that_exist(workflow: dict[str, Any]) -> None:
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    sessions = set(re.findall(r"@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text()))
    called = {command.split()[2] for command in commands if command.startswith("nox -s")}
    assert called == {"tests", "lint", "tables", "small"} <= sessions
    alone = {f"nox -s {session}" for session in called - {"tests"}}
    assert set(commands) == {"pip install nox uv", "nox -s tests -- --all", *alone}


def test_the_workflow_is_bounded_and_pinned(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job and job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())
    actions = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert [action for action in actions if not re.fullmatch(r"actions/[a-z-]+@v\d+(\.\d+){0,2}", action)] == []
    assert len(workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]) == 2


@pytest.mark.slow
def test_a_small_run_scores_what_is_committed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tolerances and their reasons are in reports/reproduction.py."""
    assert main(["--out", str(tmp_path)]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert said.count(" agrees: ") == 4 and "8 of 8 images equal to the byte" in said  # copied sources, anywhere
    run = tmp_path / "miniature" / "piebench" / "vq-reconstruction"
    summary = write_summary(read_run(run), tmp_path / "planted")
    text = summary.read_text()
    mse = float(read_run(run).samples["mse"].iloc[2])
    assert reproduction(run, summary).holds and text.count(f'"mse": {mse!r}') == 1
    summary.write_text(text.replace(f'"mse": {mse!r}', f'"mse": {mse + 1e-3!r}'))
    found = reproduction(run, summary)
    assert not found.holds and list(found.outside.values()) == ["mse by 0.001"]
    summary.write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ReportError):
        reproduction(run, summary)
