from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

PACKAGE = "vintagify"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing from threads, and lose much where the cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for converted weights."""
    return tmp_path_factory.mktemp("iguana-cache")


@pytest.fixture
def vintagify() -> None:
    """Skip the test where the package of weights is missing, or fail it where IGUANA_REQUIRE has it."""
    if find_spec(PACKAGE) is None:
        missing = f"want the package {PACKAGE}, got none (make weights)"
        if PACKAGE in os.environ.get("IGUANA_REQUIRE", ""):
            pytest.fail(f"IGUANA_REQUIRE has {PACKAGE}: {missing}")
        pytest.skip(missing)
    assert PACKAGE not in sys.modules  # its code is not run
