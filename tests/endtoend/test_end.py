"""SIGTERM: the server lets go in order, and the client does not notice more than it must."""

from __future__ import annotations

import concurrent.futures
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iguana import Client
from iguana.errors import Unavailable
from tests.endtoend.conftest import running

MODEL = "fashion-mnist-cnn"


def test_sigterm_finishes_what_is_in_flight_and_exits_0(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)
    with (
        running(tmp_path / "log", "--models.load", MODEL) as (process, ready),
        Client(str(ready["address"]), retries=0) as client,
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        assert client.health()
        options: dict[str, Any] = {"model": MODEL, "steps": 100, "stop": "never"}
        calls = [pool.submit(client.attack, images, "pgd", seed=i, **options) for i in range(4)]
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        answers = [call.result() for call in calls]
        assert all(len(answer.results) == 8 for answer in answers)
        process.wait(20)
        assert process.returncode == 0
        with pytest.raises(Unavailable):
            client.classify(images, model=MODEL)
