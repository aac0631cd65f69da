"""The laboratory for faults, and its accounts, which are printed at the end of the tests."""

import pytest

from tests.benchmarks.faults import Laboratory, Ledger

LEDGER = pytest.StashKey[Ledger]()


@pytest.fixture(scope="session")
def laboratory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    ledger = request.config.stash.setdefault(LEDGER, Ledger())
    return Laboratory(tmp_path_factory.mktemp("faults"), ledger)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if LEDGER in config.stash:
        terminalreporter.section("faults")
        terminalreporter.write_line(config.stash[LEDGER].summary())
