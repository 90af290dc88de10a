"""A client in a process of its own: calls in a closed loop, as lines of JSON on standard input ask.

    {"target": "127.0.0.1:7777", "method": "/package.Service/Method", "request": "FILE", "concurrency": 8,
     "calls": 64, "pause_s": 0}

FILE holds the bytes of the request; "seconds" in place of "calls" ends the loop by time. Each line is answered
by {"ms": [the time of each call], "s": the time of them all, "cpu_s": what this process worked}. A call that
fails ends the process: a figure of refusals is none.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


async def main() -> None:
    """Answer lines until there are no more."""
    channels: dict[str, grpc.aio.Channel] = {}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        target = order["target"]
        channel = channels.setdefault(target, grpc.aio.insecure_channel(target, options=OPTIONS))
        call = channel.unary_unary(order["method"])  # bytes to bytes
        request = Path(order["request"]).read_bytes()
        print(json.dumps(await closed_loop(lambda: call(request, timeout=120), order)), flush=True)  # noqa: B023
    for channel in channels.values():
        await channel.close()


async def closed_loop(call: Callable[[], Awaitable[object]], order: dict[str, Any]) -> dict[str, Any]:
    """Call again as soon as an answer is there, `concurrency` times at once."""
    times: list[float] = []
    left = order.get("calls", sys.maxsize)
    began, worked = time.perf_counter(), time.process_time()
    end = began + order.get("seconds", 1e9)

    async def caller() -> None:
        nonlocal left
        while left > 0 and time.perf_counter() < end:
            left -= 1
            sent = time.perf_counter()
            await call()
            times.append(1e3 * (time.perf_counter() - sent))
            if order.get("pause_s"):
                await asyncio.sleep(order["pause_s"])

    await asyncio.gather(*(caller() for _ in range(order["concurrency"])))
    return {"ms": times, "s": time.perf_counter() - began, "cpu_s": time.process_time() - worked}


if __name__ == "__main__":
    asyncio.run(main())
