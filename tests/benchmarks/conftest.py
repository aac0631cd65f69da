"""The laboratory for faults, and its accounts, which are printed at the end of the tests."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from tests.benchmarks.faults import Laboratory, Ledger

LEDGER = pytest.StashKey[Ledger]()
OF_A_WORKER = "faults"


@pytest.fixture(scope="session")
def laboratory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    ledger = request.config.stash.setdefault(LEDGER, Ledger())
    return Laboratory(tmp_path_factory.mktemp("faults"), ledger)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands its accounts over."""
    if LEDGER in session.config.stash and hasattr(session.config, "workeroutput"):
        session.config.workeroutput[OF_A_WORKER] = json.dumps(asdict(session.config.stash[LEDGER]))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if accounts := getattr(node, "workeroutput", {}).get(OF_A_WORKER):
        node.config.stash.setdefault(LEDGER, Ledger()).add(Ledger(**json.loads(accounts)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if LEDGER in config.stash:
        terminalreporter.section("faults")
        terminalreporter.write_line(config.stash[LEDGER].summary())
