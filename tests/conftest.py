"""What all tests share."""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the server does; before torch is imported

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the models of the tests are small; who wants more says so

# A shared machine stalls: no example has a deadline. CI draws the same examples every time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# These measure time or memory: each has the machine to itself.
ALONE = (
    *("soak/test_cancel.py", "soak/test_deadline.py", "soak/test_memory.py", "soak/test_storm.py"),
    "soak/test_tagged.py",
    *("test_app.py", "ops/test_speed.py", "engine/test_engine.py", "telemetry/test_traces.py"),
    *("rpc/test_drain.py", "rpc/test_health.py", "rpc/test_picture.py", "client/test_remote.py"),
    *("endtoend/test_end.py", "endtoend/test_operation.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what must not run beside other tests (make test runs the rest on several cores)."""
    here = Path(__file__).parent
    paths = [here / name for name in ALONE]
    for item in items:
        if any(item.path.is_relative_to(path) for path in paths):
            item.add_marker(pytest.mark.alone)
