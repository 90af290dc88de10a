"""Unlike requests served step by step, as whole requests, and one after another; as tables and as plots.

    python -m benchmarks.batching [--quick] [--threads N] [--out FOLDER] [--plots FOLDER]

Three questions. How long do 24 requests take that come at once? What latency do requests see that come at
random times, at 0.3 to 1.5 times what one after another can bear? How long do small requests wait while a
long attack runs? The schedules (schedule.py) share one engine, so that nothing but the schedule differs.

Each schedule runs FAST (passes as large as their rows) and STRICT (every pass padded to the model's bucket, so
that an answer's bits do not depend on the company). Ratios are against the best of the others in either mode.
It stops with an AssertionError where STRICT answers differ between step by step and one after another, or
where a schedule fools fewer images than another.
"""

# ruff: noqa: E402 - the allocator is set up before torch is imported, as the server does
from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from iguana_server import process

process.prepare()

import torch
from torch import Tensor

from benchmarks import plot
from benchmarks.passing import passing
from benchmarks.record import RESULTS, Record, add_output
from benchmarks.rounds import alternate, ratio
from benchmarks.schedule import SCHEDULES, Served, Server
from benchmarks.workload import Callers, Request, clothes, photos
from iguana_server.engine import Engine, Forged
from iguana_server.engine.meter import Silent
from iguana_server.models import catalog
from iguana_server.models.base import Model

ROOT = Path(__file__).parent.parent
MODES = {"FAST": False, "STRICT": True}
STEP, ALONE = "step by step", "one after another"
PATIENCE_S = 0.5  # an answer that comes later is not counted as good


class Passes(Silent):
    """Counts the model's passes, and their rows with and without padding."""

    def __init__(self) -> None:
        self.passes = self.rows = self.padded = 0

    def step(
        self, model: str, kind: str, rows: int, padded: int, seconds: float, spans: Sequence[object]
    ) -> None:
        """Count one."""
        self.passes += 1
        self.rows += rows
        self.padded += padded


class Bed:
    """A model on its engine, whose passes have so many threads, and the event loop of its callers."""

    def __init__(self, model: Model, threads: int, loop: asyncio.AbstractEventLoop) -> None:
        self.model, self._threads, self._loop, self.meter = model, threads, loop, Passes()
        self._engine = Engine({model.spec.name: model}, max_cost=1 << 40, meter=self.meter)

    def __enter__(self) -> Bed:
        torch.set_num_threads(self._threads)
        self._engine.start()
        torch.set_num_threads(1)  # of the callers: the engine's thread alone has a team; see process.py
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.stop()

    def serve(self, schedule: str, mode: str, requests: Sequence[Request]) -> list[Served]:
        """Serve them all."""
        server = Server(engine=self._engine, model=self.model, strict=MODES[mode])
        # Not Runner.run: before Python 3.13 it writes its result out as text, which takes 0.2 s.
        return self._loop.run_until_complete(SCHEDULES[schedule](server, requests))


def load(name: str, pictures: Callable[[Model], Tensor]) -> tuple[Model, Tensor, Tensor]:
    """Return a model, its pictures [n, C, H, W] and their classes [n]."""

    def look() -> tuple[Model, Tensor, Tensor]:
        model = catalog.load(name)
        images = pictures(model)
        with torch.inference_mode():
            parts = [model(part).argmax(1) for part in torch.split(images, model.spec.bucket)]
        return model, images, torch.cat(parts)

    return passing(look)


def at_once(
    bed: Bed,
    requests: Sequence[Request],
    kind: str,
    rounds: int,
    record: Record,
    sides: Sequence[tuple[str, str]],
) -> dict[str, float]:
    """Serve requests that come at once, by these schedules and modes; returns the requests a second of each."""
    served: dict[str, list[Served]] = {}
    work: dict[str, dict[str, float]] = {}

    def run(side: tuple[str, str]) -> None:
        before = bed.meter.passes, bed.meter.rows
        served[" ".join(side)] = bed.serve(*side, requests)
        passes, rows = bed.meter.passes - before[0], bed.meter.rows - before[1]
        work[" ".join(side)] = {"passes": passes, "rows a pass": rows / passes}

    times = alternate({" ".join(side): partial(run, side) for side in sides}, rounds)
    case: dict[str, str | int] = {"model": bed.model.spec.name, "requests": f"{len(requests)} {kind} at once"}
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        figures = {"s": middle, "requests / s": len(requests) / middle, "fooled": fooled(served[name])}
        record.add(case | {"schedule": name}, figures | latencies(served[name]) | work[name])
    same_success(served)
    if (ALONE, "STRICT") in sides:
        same_bits(served[f"{STEP} STRICT"], served[f"{ALONE} STRICT"])
    others = {name: seconds for name, seconds in times.items() if not name.startswith(STEP)}
    best = min(others, key=lambda name: statistics.median(others[name]))
    for name in sorted(times.keys() - others.keys()):
        mode = name.rsplit(" ", 1)[1]
        for other in sorted({best, f"{ALONE} {mode}"}):
            middle, least, most = ratio(times[other], times[name])
            record.add(
                case | {"schedule": f"{other} / {name}"}, {"ratio": middle, "least": least, "most": most}
            )
    return {name: len(requests) / statistics.median(seconds) for name, seconds in times.items()}


def under_load(
    bed: Bed, callers: Callers, seconds: float, loads: Sequence[float], record: Record
) -> dict[str, list[plot.Point]]:
    """Let mixed requests come at random times; the load is in units of what one after another can bear."""
    mixed = callers.mixed(200)
    sample = mixed[:30]
    (alone,) = alternate({ALONE: partial(bed.serve, ALONE, "FAST", sample)}, rounds=1).values()
    capacity = len(sample) / alone[0]
    record.add(
        {"model": bed.model.spec.name, "requests": "mixed", "schedule": ALONE}, {"capacity / s": capacity}
    )
    bed.serve(STEP, "FAST", sample)  # warm
    points: dict[str, list[plot.Point]] = {name: [] for name in SCHEDULES}
    for load in loads:
        rate = load * capacity
        requests = callers.poisson(mixed[: max(20, round(rate * seconds))], rate)
        for name in SCHEDULES if load <= 1.5 else [STEP]:
            served = bed.serve(name, "FAST", requests)
            whole_s = max(len(requests) / rate, *(one.end for one in served))
            good = sum(one.latency <= PATIENCE_S for one in served) / whole_s
            figures = latencies(served) | {"goodput / s": good}
            record.add(
                {"model": bed.model.spec.name, "requests": f"mixed, load {load:g}", "schedule": name},
                {"offered / s": rate} | figures,
            )
            points[name].append(
                plot.Point(load=load, offered=rate, p50=figures["p50 ms"], p95=figures["p95 ms"], good=good)
            )
    return points


def beside_a_long_attack(
    bed: Bed, callers: Callers, rows: int, steps: int, rate: float, number: int, record: Record
) -> dict[str, list[float]]:
    """Start one long attack and let small requests come; returns their latencies in ms."""
    small = callers.poisson(callers.small(number), rate)
    requests = [callers.long(rows, steps), *small]
    waits: dict[str, list[float]] = {}
    for name in SCHEDULES:
        bed.serve(name, "FAST", requests[:3])  # warm
        long, *short = bed.serve(name, "FAST", requests)
        record.add(
            {
                "model": bed.model.spec.name,
                "requests": f"small beside PGD-{steps} on {rows}",
                "schedule": name,
            },
            latencies(short) | {"long s": long.latency},
        )
        waits[name] = [1e3 * one.latency for one in short]
    return waits


def latencies(served: Sequence[Served]) -> dict[str, float]:
    """Median and 95th percentile, by rank."""
    ordered = sorted(1e3 * one.latency for one in served)
    return {"p50 ms": statistics.median(ordered), "p95 ms": ordered[round(0.95 * (len(ordered) - 1))]}


def fooled(served: Sequence[Served]) -> int:
    """Images that reached their goal."""
    return sum(isinstance(answer, Forged) and answer.fooled for one in served for answer in one.answers)


def same_success(served: dict[str, list[Served]]) -> None:
    """Whether all fool as many, within one image in 50: FAST rounds otherwise, and draws go by place."""
    counts = {name: fooled(one) for name, one in served.items()}
    images = sum(len(one.answers) for one in next(iter(served.values())))
    assert max(counts.values()) - min(counts.values()) <= max(1, images / 50), counts


def same_bits(some: Sequence[Served], others: Sequence[Served]) -> None:
    """Whether the answers are the same, bit for bit."""
    for one, other in zip(some, others, strict=True):
        for a, b in zip(one.answers, other.answers, strict=True):
            for name in a.__slots__:
                x, y = getattr(a, name), getattr(b, name)
                same = torch.equal(x, y) if isinstance(x, Tensor) else x == y
                assert same, f"{one.request.attack}: {name}: want {y}, got {x}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less of all, in a minute; writes to out/")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of a pass")
    parser.add_argument("--plots", type=Path, default=ROOT / "docs", help="folder of the plots (%(default)s)")
    add_output(parser)
    arguments = parser.parse_args()
    quick = arguments.quick
    if quick:
        arguments.plots = ROOT / "out"
        arguments.out = ROOT / "out" if arguments.out == RESULTS else arguments.out
    record = Record("batching")
    rates: dict[str, dict[str, float]] = {}
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        model, images, seen = load("fashion-mnist-cnn", lambda _: clothes(500))
        with Bed(model, arguments.threads, loop) as bed:
            gc.freeze()
            callers = Callers(model, images, seen, steps=(5, 20) if quick else (5, 40), seed=1)
            number = 9 if quick else 24
            rounds, fast = 1 if quick else 3, [(schedule, "FAST") for schedule in SCHEDULES]
            # Of unlike requests, whole requests are one after another once more: so once is enough.
            both = [*fast, (STEP, "STRICT"), (ALONE, "STRICT")]
            rates[f"{number} unlike, Fashion-MNIST"] = at_once(
                bed, callers.unlike(number), "unlike", rounds, record, both
            )
            rates[f"{number} alike, Fashion-MNIST"] = at_once(
                bed, callers.alike(number), "alike", rounds, record, fast
            )
            callers = Callers(model, images, seen, steps=(5, 20), seed=2)
            loads = (0.6, 1.5) if quick else (0.3, 0.6, 0.9, 1.5, 2, 3)
            points = under_load(bed, callers, 2 if quick else 5, loads, record)
            rows, steps = (64, 20) if quick else (64, 100)
            waits = beside_a_long_attack(bed, callers, rows, steps, rate=20, number=steps // 2, record=record)
        model, images, seen = load(
            "efficientnet-lite0", lambda model: photos(16, model.spec.shape[1], seed=3)
        )
        with Bed(model, arguments.threads, loop) as bed:
            callers = Callers(model, images, seen, steps=(1, 2), seed=3)
            unlike = callers.unlike(4 if quick else 24)
            both = [(schedule, mode) for mode in MODES for schedule in (STEP, ALONE)]
            rates[f"{len(unlike)} unlike, EfficientNet-Lite0"] = at_once(
                bed, unlike, "unlike", rounds, record, both
            )
    arguments.plots.mkdir(parents=True, exist_ok=True)
    plot.latency(points, PATIENCE_S, arguments.plots / "batching-latency.png")
    plot.throughput(rates, arguments.plots / "batching-throughput.png")
    plot.waiting(waits, arguments.plots / "batching-head-of-line.png")
    record.write(arguments.out)


if __name__ == "__main__":
    main()
