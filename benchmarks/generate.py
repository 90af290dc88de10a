"""Pictures a second of a generator over gRPC, against the bare module.

    python -m benchmarks.generate [--model faces] [--rounds 9]

The server is a process as a user starts it, the bare module another, with as many threads; both run all the time and
take turns, one call at once. A call asks for 1, 8 or 64 seeds and gets uint8 pixels; the bare module maps codes that
lie ready to float pixels in [-1, 1], and does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import grpc
import torch

from benchmarks.record import Record, add_output
from benchmarks.rounds import ratio
from iguana.generate import generate_request
from iguana.v1 import generate_pb2_grpc
from iguana_server import generators
from iguana_server.synthesis import catalog

CALLS = {1: 60, 8: 20, 64: 4}  # of a round, by seeds
WARM_UP = 2  # rounds


def bare(name: str) -> None:
    """Answer lines "SEEDS CALLS" with seconds."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = catalog.available(generators)[name](torch.device("cpu"))
    rng = torch.Generator().manual_seed(0)
    columns = {n: network.example(n, rng) for n in CALLS}
    labelled = bool(network.spec.classes)  # type: ignore[attr-defined]  # a generator's
    print("ready", flush=True)
    for line in sys.stdin:
        n, calls = map(int, line.split())
        z, label = columns[n]
        began = time.perf_counter()
        with torch.inference_mode():
            for _ in range(calls):
                network.net(z, label) if labelled else network.net(z)
        print(time.perf_counter() - began, flush=True)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="faces")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    add_output(parser)
    given = parser.parse_args()
    if given.bare:
        bare(given.model)
        return
    record = Record("generate")
    words = [sys.executable, "-m", "benchmarks.generate", "--bare", "--model", given.model]
    flags = ["--models.load", given.model, "--server.port", "0", "--server.metrics_port", "0"]
    serve = [Path(sys.executable).parent / "iguana-server", "serve", *flags]
    with (
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as module,
        subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server,
    ):
        assert module.stdin
        assert module.stdout
        assert module.stdout.readline() == "ready\n"
        ready = next(r for line in server.stdout or () if (r := json.loads(line))["message"] == "serving")
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(ready["address"], options=options) as channel:
            stub = generate_pb2_grpc.GenerateServiceStub(channel)
            for strict in (True, False):
                for n, calls in CALLS.items():
                    request = generate_request(
                        model=given.model, seeds=range(n), encoding="tensor", strict=strict
                    )
                    times: dict[str, list[float]] = {"server": [], "module": []}
                    for turn in range(WARM_UP + given.rounds):
                        module.stdin.write(f"{n} {calls}\n")
                        module.stdin.flush()
                        alone = float(module.stdout.readline())
                        began = time.perf_counter()
                        for _ in range(calls):
                            assert len(stub.Generate(request).pictures) == n
                        if turn >= WARM_UP:
                            times["server"].append(time.perf_counter() - began)
                            times["module"].append(alone)
                    share, least, greatest = ratio(times["module"], times["server"])
                    record.add(
                        {"model": given.model, "seeds": n, "determinism": "strict" if strict else "fast"},
                        {
                            "images/s": n * calls / statistics.median(times["server"]),
                            "module images/s": n * calls / statistics.median(times["module"]),
                            "server / module": share,
                            "least": least,
                            "greatest": greatest,
                        },
                    )
        server.terminate()
        module.stdin.close()
    print(f"wrote {record.write(given.out)}")


if __name__ == "__main__":
    main()
