"""Iguana over gRPC against the same model in process, a bare gRPC server, and other model servers.

    python -m benchmarks.serving [--quick] [--model efficientnet-lite0 fashion-mnist-cnn] [--peers FOLDER]

Every contender is a process of its own that runs all the time: the engine and model in process (inprocess.py),
Iguana as a user starts it, bare.py as it is and with Iguana's settings of the process, and the peers that lie
in FOLDER (others.py). In each round each contender answers the same closed loops (load.py): raw uint8 pixels in,
1, 8 and 32 calls at once. A ratio is of the same round, its figure the median of the rounds.

In process, a call of batch 8 takes eight pictures through one pass; "strict" is Iguana's default, whose passes
have a bucket's rows or a doubled number of them, so that its anchor is such passes. Memory is after the loops.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from benchmarks import bare, others
from benchmarks.record import Record, add_output
from iguana.request import attack_request, classify_request

CLASSIFY = "/iguana.v1.ClassifyService/Classify"
ATTACK = "/iguana.v1.AttackService/Attack"
HEALTH = "/grpc.health.v1.Health/Check"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
START_S = 60.0


@dataclass(frozen=True)
class Case:
    """A model and how much of it is asked for, so that every loop takes a second or more."""

    shape: tuple[int, int, int]  # H, W, C
    bucket: int
    largest: int  # rows of a pass
    calls: dict[int, int]  # of a loop, by concurrency
    attacked: int  # images of an attack
    probe_s: float  # of load under which health is asked

    def strict(self, concurrency: int) -> int:
        """Return the rows of a STRICT pass that meets so many calls (a power of two)."""
        return max(self.bucket, min(self.largest, concurrency))


CASES = {
    "efficientnet-lite0": Case((224, 224, 3), 4, 8, {1: 40, 8: 64, 32: 96}, 4, 6.0),
    "fashion-mnist-cnn": Case((28, 28, 1), 4, 128, {1: 300, 8: 800, 32: 1280}, 128, 3.0),
}


@dataclass
class Child:
    """A process that answers lines."""

    process: subprocess.Popen[str]

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and wait for what it measured."""
        self.tell(**order)
        return self.told()

    def tell(self, **order: Any) -> None:
        """Give an order."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def told(self) -> dict[str, Any]:
        """Wait for what it measured."""
        answer: dict[str, Any] = json.loads(self.line())
        return answer

    def line(self) -> str:
        """Return the next line; raises RuntimeError at its end."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r}: want a line, got its end")
        return line


@dataclass
class Server:
    """A contender behind a port, and what was measured of it."""

    name: str
    child: Child
    port: int
    method: str
    requests: dict[str, Path]  # by mode
    start_s: float
    idle: tuple[float, float] = (0, 0)  # RSS, PSS in MB
    rounds: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"


def tree(root: int) -> list[int]:
    """Return a process and its descendants."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            parents.setdefault(int(stat[1]), []).append(int(folder.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def cpu_s(root: int) -> float:
    """Return the seconds that a process and its descendants have worked."""
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in tree(root))
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) * TICK_S


def memory_mb(root: int) -> tuple[float, float]:
    """Return resident and proportional set size of a process and its descendants, in MB."""
    total = {"Rss": 0, "Pss": 0}
    for pid in tree(root):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in total:
                total[name] += int(rest.split()[0])
    return total["Rss"] / 1024, total["Pss"] / 1024


class Bench:
    """The processes of one model's comparison."""

    def __init__(self, model: str, folder: Path, stack: contextlib.ExitStack) -> None:
        self.model, self.case, self.folder, self.stack = model, CASES[model], folder, stack
        self.picture = np.random.default_rng(0).integers(0, 256, self.case.shape, np.uint8)
        self.client = self.spawn(sys.executable, "-m", "benchmarks.load")
        self.prober = self.spawn(sys.executable, "-m", "benchmarks.load")

    def spawn(self, *command: str | Path, **variables: str) -> Child:
        """Start a process that ends with the comparison."""
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | variables,
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        return Child(process)

    def write(self, name: str, request: bytes) -> Path:
        """Keep the bytes of a request."""
        path = self.folder / f"{self.model}-{name}"
        path.write_bytes(request)
        return path

    def in_process(self) -> Child:
        """Start the anchor."""
        child = self.spawn(sys.executable, "-m", "benchmarks.inprocess", self.model)
        child.line()
        return child

    def iguana(self) -> Server:
        """Start Iguana with its defaults, but for the model and the ports."""
        began = time.perf_counter()
        flags = ("--server.port", "0", "--server.metrics_port", "0", "--models.load", self.model)
        child = self.spawn(sys.executable, "-m", "iguana_server", "serve", *flags)
        line: dict[str, Any] = {}
        while line.get("message") != "serving":
            line = child.told()
        requests = {
            mode: self.write(
                mode,
                classify_request(
                    self.picture[None], model=self.model, strict=mode == "strict"
                ).SerializeToString(),
            )
            for mode in ("fast", "strict")
        }
        return self.serving("iguana", child, line["port"], CLASSIFY, requests, began)

    def bare(self, name: str, *flags: str) -> Server:
        """Start a bare server."""
        began = time.perf_counter()
        child = self.spawn(sys.executable, "-m", "benchmarks.bare", self.model, *flags)
        requests = {"": self.write(name, self.picture.tobytes())}
        return self.serving(name, child, int(child.line()), bare.METHOD, requests, began)

    def peer(self, name: str, python: Path) -> Server:
        """Start a peer with the interpreter that it is installed for."""
        began = time.perf_counter()
        request = self.folder / f"{self.model}-{name}"
        child = self.spawn(python, "-m", f"benchmarks.others.{name}_", self.model, request)
        while not (said := re.fullmatch(r"(\d+) (/\S+)\n", child.line())):
            pass  # its own log
        return self.serving(name, child, int(said[1]), said[2], {"": request}, began)

    def serving(
        self, name: str, child: Child, port: int, method: str, requests: dict[str, Path], began: float
    ) -> Server:
        """Wait until its health is SERVING (of a peer: until it has said its port)."""
        server = Server(name, child, port, method, requests, time.perf_counter() - began)
        with grpc.insecure_channel(server.target) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            while name not in others.NAMES and time.perf_counter() < began + START_S:
                with contextlib.suppress(grpc.RpcError):
                    if (
                        check(health_pb2.HealthCheckRequest()).status
                        == health_pb2.HealthCheckResponse.SERVING
                    ):
                        break
                time.sleep(0.02)
        server.start_s = time.perf_counter() - began
        server.idle = memory_mb(child.process.pid)
        return server

    def loop(self, server: Server, mode: str, concurrency: int, calls: int) -> dict[str, Any]:
        """Let the client call; returns what it measured, with the server's work."""
        worked = cpu_s(server.child.process.pid)
        said = self.client.ask(
            target=server.target,
            method=server.method,
            request=str(server.requests[mode]),
            concurrency=concurrency,
            calls=calls,
        )
        return said | {"server_cpu_s": cpu_s(server.child.process.pid) - worked}

    def health(self, server: Server, mode: str) -> list[float]:
        """Return milliseconds of health checks while 32 calls at once are under way."""
        request = str(server.requests[mode])
        common = {"target": server.target, "seconds": self.case.probe_s}
        self.client.tell(**common, method=server.method, request=request, concurrency=32)
        time.sleep(0.3)
        empty = str(self.write("health", b""))
        common["seconds"] = self.case.probe_s - 0.6
        said = self.prober.ask(**common, method=HEALTH, request=empty, concurrency=1, pause_s=0.01)
        self.client.told()
        return list(said["ms"])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that so great a share of the values does not exceed."""
    return sorted(values)[max(0, -(-len(values) * round(share * 100) // 100) - 1)]


def progress(text: str) -> None:
    """Say what is under way."""
    print(f"  ... {text}", file=sys.stderr, flush=True)


def compare(bench: Bench, record: Record, rounds: int, folder: Path | None) -> None:
    """Measure one model."""
    model, case = bench.model, bench.case
    anchor = bench.in_process()
    servers = [bench.iguana(), bench.bare("bare"), bench.bare("bare prepared", "--prepared")]
    servers.append(bench.bare("bare 2 lanes", "--prepared", "--lanes", "2"))
    for name, python in others.found(folder):
        servers.append(bench.peer(name, python))
    for server in servers:
        progress(f"{model}: {server.name} serves after {server.start_s:.1f} s")
        for mode in server.requests:
            bench.loop(server, mode, 32, 64)
    inside: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for turn in range(rounds):
        progress(f"{model}: round {turn + 1} of {rounds}")
        for concurrency, calls in case.calls.items():
            for size in dict.fromkeys((concurrency, case.strict(concurrency))):
                said = anchor.ask(batch=concurrency, size=size, calls=max(3, calls // concurrency))
                inside.setdefault((concurrency, size), []).append(said)
            for server in servers:
                for mode in server.requests:
                    said = bench.loop(server, mode, concurrency, calls)
                    server.rounds.setdefault((mode, concurrency), []).append(said)
    for (batch, size), told in inside.items():
        note_inside(record, model, batch, size, told)
    for server in servers:
        for (mode, concurrency), loops in server.rounds.items():
            size = case.strict(concurrency) if mode == "strict" else concurrency
            note_loops(record, model, server, mode, concurrency, loops, inside[concurrency, size])
    note_processes(record, model, servers)
    note_health(record, bench, servers[:3], min(2, rounds))
    attack(bench, record, servers[0], rounds)


def note_processes(record: Record, model: str, servers: Sequence[Server]) -> None:
    """Note start and memory of each server, against the bare one."""
    bare_idle, bare_loaded = servers[1].idle[0], memory_mb(servers[1].child.process.pid)[0]
    for server in servers:
        (rss, pss), (idle_rss, idle_pss) = memory_mb(server.child.process.pid), server.idle
        record.add(
            {"model": model, "server": server.name, "of": "process"},
            {
                "start s": server.start_s,
                "idle RSS MB": idle_rss,
                "idle PSS MB": idle_pss,
                "RSS MB": rss,
                "PSS MB": pss,
                "idle RSS / bare": idle_rss / bare_idle,
                "RSS / bare": rss / bare_loaded,
            },
        )


def note_health(record: Record, bench: Bench, servers: Sequence[Server], rounds: int) -> None:
    """Note how soon each server tells its health while it is saturated."""
    for server in servers:
        for mode in server.requests:
            progress(f"{bench.model}: health of {server.name} {mode}")
            ms = [value for _ in range(rounds) for value in bench.health(server, mode)]
            note = {"probes": float(len(ms)), "p50 ms": statistics.median(ms)}
            note |= {"p99 ms": percentile(ms, 0.99), "max ms": max(ms)}
            record.add(
                {"model": bench.model, "server": f"{server.name} {mode}".strip(), "of": "health"}, note
            )


def note_inside(record: Record, model: str, batch: int, size: int, rounds: Sequence[dict[str, Any]]) -> None:
    """Note the anchor at one batch."""
    times = [ms for said in rounds for ms in said["ms"]]
    calls = sum(len(said["ms"]) for said in rounds)
    record.add(
        {"model": model, "server": "in process", "of": f"batch {batch} in passes of {size}"},
        {
            "p50 ms": statistics.median(times),
            "p99 ms": percentile(times, 0.99),
            "req/s": statistics.median(batch * len(said["ms"]) / said["s"] for said in rounds),
            "CPU ms/req": 1e3 * sum(said["cpu_s"] for said in rounds) / calls / batch,
        },
    )


def note_loops(
    record: Record,
    model: str,
    server: Server,
    mode: str,
    concurrency: int,
    loops: Sequence[dict[str, Any]],
    inside: Sequence[dict[str, Any]],
) -> None:
    """Note a server at one concurrency, against the anchor of the same rounds."""
    times = [ms for said in loops for ms in said["ms"]]
    pairs = list(zip(loops, inside, strict=True))
    figures = {
        "p50 ms": statistics.median(times),
        "p99 ms": percentile(times, 0.99),
        "req/s": statistics.median(len(said["ms"]) / said["s"] for said in loops),
        "CPU ms/req": 1e3 * sum(said["server_cpu_s"] for said in loops) / len(times),
        "client CPU ms/req": 1e3 * sum(said["cpu_s"] for said in loops) / len(times),
        "req/s / in process": statistics.median(
            len(a["ms"]) / a["s"] / (concurrency * len(b["ms"]) / b["s"]) for a, b in pairs
        ),
    }
    if concurrency == 1:
        added = [statistics.median(a["ms"]) - statistics.median(b["ms"]) for a, b in pairs]
        figures["added p50 ms"] = statistics.median(added)
    else:
        alone = server.rounds[mode, 1]
        figures["req/s / at 1"] = statistics.median(
            len(a["ms"]) / a["s"] / (len(b["ms"]) / b["s"]) for a, b in zip(loops, alone, strict=True)
        )
    record.add(
        {"model": model, "server": f"{server.name} {mode}".strip(), "of": f"{concurrency} calls"}, figures
    )


def attack(bench: Bench, record: Record, iguana: Server, rounds: int) -> None:
    """PGD-40 at 8/255, every step of it, over gRPC and by the engine alone."""
    progress(f"{bench.model}: attacks")
    engine = bench.in_process()  # not the anchor, which has a team of OpenMP threads already; see process.py
    n = bench.case.attacked
    images = np.stack([np.roll(bench.picture, i, axis=0) for i in range(n)])
    request = attack_request(
        images, "pgd", model=bench.model, epsilon=8 / 255, alpha=2 / 255, steps=40, stop="never"
    )
    file = str(bench.write("attack", request.SerializeToString()))
    order = {"target": iguana.target, "method": ATTACK, "request": file, "concurrency": 1, "calls": 1}
    seconds: dict[str, list[float]] = {"in process": [], "iguana": []}
    for turn in range(1 + rounds):
        for name, said in (
            ("in process", engine.ask(attack=file, calls=1)),
            ("iguana", bench.client.ask(**order)),
        ):
            if turn:
                seconds[name].append(said["s"])
    ratios = [a / b for a, b in zip(seconds["in process"], seconds["iguana"], strict=True)]
    for name, took in seconds.items():
        figures = {"images/s": n / statistics.median(took)}
        if name == "iguana":
            figures["images/s / in process"] = statistics.median(ratios)
        record.add({"model": bench.model, "server": name, "of": f"PGD-40, {n} images"}, figures)
    rss, pss = memory_mb(iguana.child.process.pid)
    record.add(
        {"model": bench.model, "server": "iguana", "of": "process after attacks"},
        {"RSS MB": rss, "PSS MB": pss},
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round: that it runs, not what it measures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--peers", type=Path, help="folder of virtual environments, each named as its peer")
    add_output(parser)
    arguments = parser.parse_args()
    record = Record("serving")
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.model:
            with contextlib.ExitStack() as stack:
                rounds = 1 if arguments.quick else arguments.rounds
                compare(Bench(model, Path(folder), stack), record, rounds, arguments.peers)
    print(record.write(arguments.out))


if __name__ == "__main__":
    main()
