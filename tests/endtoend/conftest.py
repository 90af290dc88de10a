"""One real server for all tests here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
CAT = Path(__file__).parents[2] / "examples" / "cat.png"


@contextmanager
def running(log: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    """A server with its default models on free ports, and its ready line."""
    command = [
        str(BIN / "iguana-server"),
        "serve",
        "--server.port",
        "0",
        "--server.metrics_port",
        "0",
        *flags,
    ]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            ready = next(
                (
                    record
                    for line in process.stdout or ()
                    if (record := json.loads(line))["message"] == "serving"
                ),
                None,
            )
            assert ready is not None, log.read_text()
            yield process, ready
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server."""
    with running(tmp_path_factory.mktemp("server") / "log") as (_, ready):
        yield str(ready["address"])


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a small model of each kind, in a process of its own."""
    load = ("fashion-mnist-cnn", "fashion-mnist-gan", "sneaker-to-boot")
    flags = [word for name in load for word in ("--models.load", name)]
    with running(tmp_path_factory.mktemp("everything") / "log", *flags) as (_, ready):
        yield str(ready["address"])
