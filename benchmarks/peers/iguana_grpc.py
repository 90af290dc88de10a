"""Iguana over gRPC: a real server with its default settings in a process of its own, and the Python client."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import task as tasks
from benchmarks.peers.task import Task
from benchmarks.peers.victim import Victim
from iguana import Client

ATTACKS = (*tasks.ATTACKS, "autoattack")
START_S, CALL_S = 120.0, 600.0


@contextmanager
def serving(model: str, device: str) -> Iterator[str]:
    """Run a server of one model on a free port; yields its address."""
    command = [str(Path(sys.executable).parent / "iguana-server"), "serve", "--models.load", model]
    flags = ["--models.device", device, "--server.port", "0", "--server.metrics_port", "0"]
    with TemporaryDirectory() as folder:
        out = Path(folder) / "log"
        with out.open("w") as log, subprocess.Popen([*command, *flags], stdout=log, stderr=log) as process:
            try:
                yield _address(process, out)
            finally:
                process.terminate()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait for the line that says where it serves. Raises TimeoutError, or RuntimeError where it ends."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        for line in log.read_text().splitlines():
            if line.endswith("}") and (record := json.loads(line)).get("message") == "serving":
                return str(record["address"])
        if process.poll() is not None:
            raise RuntimeError(f"iguana-server: want it to serve, got an end:\n{log.read_text()}")
        time.sleep(0.1)
    raise TimeoutError(f"iguana-server: want it to serve within {START_S:g} s, got:\n{log.read_text()}")


@contextmanager
def contender(victim: Victim) -> Iterator[Callable[[Task], Tensor]]:
    """Send 8-bit pixels, get float ones, as the libraries answer."""
    pixels = (victim.images.cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    labels = victim.labels.tolist()

    def run(task: Task) -> Tensor:
        parameters: dict[str, Any] = {"epsilon": task.epsilon}
        if task.attack != "fgsm":
            parameters["steps"] = task.steps
        if task.attack not in {"fgsm", "apgd", "autoattack"}:
            parameters["alpha"] = task.alpha
        answer = client.attack(
            pixels,
            task.attack,
            model=victim.name,
            label=labels,
            stop="success" if task.early else "never",
            keep="best" if task.early else "last",
            grid="float",
            strict=task.strict,
            timeout_s=CALL_S,
            **parameters,
        )
        forged = np.stack([result.image for result in answer])
        return torch.from_numpy(forged).permute(0, 3, 1, 2)

    with serving(victim.name, str(victim.device)) as address, Client(address) as client:
        yield run
