"""A server as its users run it, seen from outside: its answers, its /metrics, its log and what /proc tells of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.soak.contract import GENERATOR, MODEL, TRANSLATOR

PROGRAM = Path(sys.executable).parent / "iguana-server"
GAUGES = ("iguana_rpc_in_flight", "iguana_queue_cost", "iguana_lane_rows")
COUNT = "iguana_rpc_server_duration_seconds_count"
# Blocks of 128 KiB and more are mapped and unmapped one by one, so that the peak of the resident memory shows each.
SHOWN = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}
KIB = 1024


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    address: str
    metrics_port: int
    log: Path

    @property
    def proc(self) -> Path:
        """Its directory in /proc."""
        return Path(f"/proc/{self.process.pid}")

    def metrics(self) -> Mapping[tuple[str, tuple[str, ...]], float]:
        """The samples of /metrics by name and values of the labels, these in order of the labels' names."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as page:
            text = page.read().decode()
        return {
            (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def counts(self) -> dict[tuple[str, str], int]:
        """Calls that have ended, by method and code."""
        return {
            (labels[1], labels[0]): int(value)
            for (name, labels), value in self.metrics().items()
            if name == COUNT and value
        }

    def gauges(self) -> dict[str, float]:
        """What is in hand now: the sum of each gauge."""
        found = self.metrics().items()
        return {gauge: sum(value for (name, _), value in found if name == gauge) for gauge in GAUGES}

    def rest(self, within_s: float = 10) -> dict[str, float]:
        """Wait until nothing is in hand; return the gauges as they are then, or at the end of the time."""
        until = time.monotonic() + within_s
        while any(gauges := self.gauges().values()) and time.monotonic() < until:
            time.sleep(0.01)
        assert gauges is not None
        return self.gauges()

    def resident(self) -> int:
        """Bytes of memory that are resident."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """The most that was resident since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Begin to measure the peak anew."""
        (self.proc / "clear_refs").write_text("5")

    def cpu_s(self) -> float:
        """Seconds of CPU that its threads have had; those of threads that have ended are not in it."""
        ran = (task / "schedstat" for task in (self.proc / "task").iterdir())
        return sum(int(file.read_text().split()[0]) for file in ran) / 1e9

    def open_files(self) -> int:
        """How many file descriptors it holds."""
        return sum(1 for _ in (self.proc / "fd").iterdir())

    def faults(self) -> list[str]:
        """Lines of the log that tell of a defect, and whatever is no line of the log."""
        said = self.log.read_text().splitlines()
        return [line for line in said if not line.startswith("{") or json.loads(line)["level"] == "error"]

    def check_sound(self) -> None:
        """It is the same process still, it serves, and has logged no defect."""
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        assert not self.faults()

    def _status(self, name: str) -> int:
        lines = (self.proc / "status").read_text().splitlines()
        return next(int(line.split()[1]) * KIB for line in lines if line.startswith(f"{name}:"))


@contextmanager
def serve(log: Path, *flags: str, env: Mapping[str, str] | None = None) -> Iterator[Served]:
    """A server of the small model on free ports; at the end it must stop in peace."""
    command = [
        str(PROGRAM),
        "serve",
        "--models.load",
        MODEL,
        "--models.load",
        GENERATOR,
        "--models.load",
        TRANSLATOR,
        "--server.port",
        "0",
        "--server.metrics_port",
        "0",
        "--server.drain_notice_s",
        "0",
        *flags,
    ]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, text=True, env={**os.environ, **(env or {})}
        )
    try:
        ready = _ready(process, log)
        yield Served(process, str(ready["address"]), int(str(ready["metrics_port"])), log)
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0, log.read_text()[-4000:]


def _ready(process: subprocess.Popen[str], log: Path) -> dict[str, object]:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text().splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                record: dict[str, object] = json.loads(line)
                if record["message"] == "serving":
                    return record
        time.sleep(0.02)
    raise AssertionError(log.read_text())
