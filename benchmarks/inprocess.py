"""The model and the engine without a wire, in a process of its own, with the settings of the server's.

    python -m benchmarks.inprocess MODEL

It prints a line when it is ready. Then lines of JSON on standard input ask, and each is answered by one:

    {"batch": 8, "size": 4, "calls": 5}       Classify: raw uint8 pixels to the five likeliest classes, in passes
                                              of so many rows, the last padded
    {"attack": "FILE", "calls": 1}            Attack: FILE holds an AttackRequest; the engine's part of it alone

A process is asked for one of the two alone: passes are run by this thread, attacks by the engine's, and a second
team of OpenMP threads would slow the first.

The answer is {"ms": [the time of each call], "s": the time of them all, "cpu_s": what this process worked}.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from benchmarks.load import read
from benchmarks.passing import passing
from iguana_server import process


def timed(run: Callable[[], object]) -> float:
    """Return how many milliseconds a call takes."""
    began = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - began)


async def answer(name: str) -> None:  # noqa: PLR0915 - the imports
    """Answer lines until there are no more."""
    import numpy as np  # noqa: PLC0415 (torch must come after prepare())
    import torch  # noqa: PLC0415

    from iguana.v1 import attack_pb2  # noqa: PLC0415
    from iguana_server import app, ops  # noqa: PLC0415
    from iguana_server.config import Config  # noqa: PLC0415
    from iguana_server.engine.loop import Engine  # noqa: PLC0415
    from iguana_server.models import catalog  # noqa: PLC0415
    from iguana_server.rpc.codec import Codec  # noqa: PLC0415
    from iguana_server.rpc.intake import Intake  # noqa: PLC0415
    from iguana_server.rpc.origin import Origin  # noqa: PLC0415

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = passing(partial(catalog.load, name))
    channels, height, width = model.spec.shape
    one, zero = torch.ones(channels), torch.zeros(channels)
    picture = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8).tobytes()

    def classify(batch: int, size: int) -> list[list[int]]:
        pixels = torch.from_numpy(np.stack([np.frombuffer(picture, np.uint8)] * batch))
        x = ops.pixels_to_float(pixels.view(batch, height, width, channels), one, zero, channels_last=True)
        best: list[list[int]] = []
        for rows in torch.split(x, size):
            short = size - len(rows)
            padded = torch.cat([rows, rows.new_zeros((short, *rows.shape[1:]))]) if short else rows
            with torch.inference_mode():
                best += model(padded)[: len(rows)].softmax(1).topk(5).indices.tolist()
        return best

    with contextlib.ExitStack() as stack:
        decoders = stack.enter_context(ThreadPoolExecutor(2))
        engine = Engine({name: model})
        codec = Codec(engine.models, Intake(app.limits(Config()), decoders))

        async def attack(file: str) -> Callable[[], Awaitable[object]]:
            request = attack_pb2.AttackRequest.FromString(read(file))
            origin = Origin("iguana.v1.AttackService/Attack", "", time.monotonic() + 600, None)
            order = await codec.to_attack(request, origin)
            job = order.acts[0](range(len(order.images)))
            return lambda: engine.run(job)

        print(flush=True)
        loop, started = asyncio.get_running_loop(), False
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order: dict[str, Any] = json.loads(line)
            times: list[float] = []
            worked = time.process_time()
            if "attack" in order:
                if not started:
                    started = True
                    stack.enter_context(engine)
                    torch.set_num_threads(1)  # as the server does beside its engine
                for _ in range(order["calls"]):
                    run = await attack(order["attack"])
                    began = time.perf_counter()
                    await run()
                    times.append(1e3 * (time.perf_counter() - began))
            else:
                work = partial(classify, order["batch"], order["size"])
                times = [timed(work) for _ in range(order["calls"])]
            said = {"ms": times, "s": sum(times) / 1e3, "cpu_s": time.process_time() - worked}
            print(json.dumps(said), flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    process.prepare()
    asyncio.run(answer(parser.parse_args().model))


if __name__ == "__main__":
    main()
