"""Every attack against its oracle on three victims; the suite takes those that cost little, ORACLES=1 all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import clothes
from tests.oracles.agreement import Agreement
from tests.oracles.victim import VICTIMS, Victim

ALL = bool(os.environ.get("ORACLES"))
USUAL = ("toy", "fashion-mnist-cnn")
_agreement = Agreement()


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line(
        "markers",
        f"suite(victims): those of an oracle's victims in the suite; {', '.join(USUAL)} if not said",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the dear ones to ORACLES=1."""
    here = Path(__file__).parent
    dear = [item for item in items if not ALL and here in item.path.parents and not _in_suite(item)]
    if dear:
        config.hook.pytest_deselected(items=dear)
        items[:] = [item for item in items if item not in dear]


def _in_suite(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    victim = item.callspec.params.get("victim") if hasattr(item, "callspec") else None
    mark = item.get_closest_marker("suite")
    return victim is None or victim in (mark.args if mark else USUAL)


@pytest.fixture(params=list(VICTIMS))
def victim(request: pytest.FixtureRequest) -> Victim:
    """Whom both sides attack."""
    name: str = request.param
    if name == "fashion-mnist-cnn":
        clothes.needed()
    return VICTIMS[name]()


@pytest.fixture(scope="session")
def agreement() -> Agreement:
    """Takes what a test measures."""
    return _agreement


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As the libraries' own order of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, where all was run."""
    if ALL and _agreement.figures:
        terminalreporter.section("oracles: the largest difference")
        for line in _agreement.table(list(VICTIMS)):
            terminalreporter.line(line)
