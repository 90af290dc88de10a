"""One server for what needs no settings of its own, and the table at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.soak.figures import Figures
from tests.soak.scale import SEED, SOAK
from tests.soak.served import Served, serve

# Requests are refused above these: what is drawn at random asks for little honest work, or for none.
FLAGS = ("--limits.max_steps", "64", "--limits.max_queries", "64", "--limits.max_restarts", "4")

_figures = Figures()


@pytest.fixture(scope="session")
def figures() -> Figures:
    """Takes what a test measures."""
    return _figures


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A running server."""
    with serve(tmp_path_factory.mktemp("soak") / "log", *FLAGS) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, where all was sent."""
    if SOAK and _figures.lines:
        terminalreporter.section(f"soak, SOAK={SEED}")
        for line in _figures.table():
            terminalreporter.line(line)
