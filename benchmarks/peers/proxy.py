"""The other end of a worker's pipe, and the judge of what it delivers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.task import Task
from benchmarks.peers.victim import Victim


class Worker:
    """A contender in a process of its own; asleep between tasks."""

    def __init__(self, contender: str, victim: str, device: str, settings: str) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-m", "benchmarks.peers.worker", contender, victim, device, settings]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._name = f"{contender} on {victim}"
        hello = self._read()
        self.attacks: list[str] = hello["attacks"]
        self.threads: int = hello["threads"]

    def __enter__(self) -> Self:
        """Hold it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it end."""
        self._process.communicate()

    def run(self, task: Task) -> None:
        """Have the task done."""
        self._ask(task=asdict(task))

    def deliver(self, task: Task, folder: Path) -> Tensor:
        """Return the images [n, C, H, W] that it made last of a task."""
        path = folder / "images.npy"
        self._ask(task=asdict(task), deliver=str(path))
        return torch.from_numpy(np.load(path, allow_pickle=False))

    def _ask(self, **command: Any) -> None:
        assert self._process.stdin is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name}: want an answer, got an end with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True)
class Verdict:
    """How many samples a plain forward of the plain model takes for something else, and the mean norm of the change."""

    fooled: int
    samples: int
    norm: float


def judge(victim: Victim, images: Tensor, task: Task) -> Verdict:
    """Look at what was delivered. Raises AssertionError where it lies outside the box or the ball."""
    images = images.to(victim.device)
    change = (images - victim.images).flatten(1)
    assert images.shape == victim.images.shape, images.shape
    assert images.amin() >= 0 and images.amax() <= 1, (images.amin(), images.amax())  # noqa: PT018 - one condition
    norms = change.norm(dim=1) if task.attack == "pgdl2" else change.abs().amax(1)
    assert norms.max() <= task.epsilon * (1 + 1e-4), (float(norms.max()), task.epsilon)
    with torch.inference_mode():
        fooled = victim.net(images).argmax(1) != victim.labels
    return Verdict(int(fooled.sum()), len(images), float(norms.mean()))
