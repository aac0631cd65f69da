"""Which tests run: without `--all` the quick ones, and with it those marked `slow` too."""

import os
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before PyTorch starts its threads: there are as many workers as cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # where a test has two, they don't spin on others' cores

LEFT_OUT = pytest.StashKey[int]()
WORKERS_KEY = "slow_tests_left_out"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow tests too")


def pytest_report_header(config: pytest.Config) -> str:
    return "tests: all" if runs_slow(config) else "tests: the quick ones; --all runs the slow ones too"


def runs_slow(config: pytest.Config) -> bool:
    """With --all, where -m chooses, and where tests are named one by one."""
    return bool(config.option.all or config.option.markexpr or any("::" in name for name in config.args))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if runs_slow(config):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    config.stash[LEFT_OUT] = len(slow)
    if hasattr(config, "workeroutput"):
        config.workeroutput[WORKERS_KEY] = len(slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """No workers for a test that is named, so that a debugger reaches it; None leaves the number to pytest-xdist."""
    return 0 if any("::" in name for name in config.args) else None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Each worker of pytest-xdist has collected all tests."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get(WORKERS_KEY, 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{count} slow tests left out; --all runs them")
