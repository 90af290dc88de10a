"""A client in a process of its own: calls in a closed loop, as lines of JSON on standard input ask.

    {"target": "127.0.0.1:7777", "method": "/package.Service/Method", "request": "FILE", "concurrency": 8,
     "calls": 64, "pause_s": 0}

A method without a dot is the path of an HTTP POST of JSON, over connections that stay open. FILE holds the bytes of the
request; "seconds" in place of "calls" ends the loop by time. Each line is answered
by {"ms": [the time of each call], "s": the time of them all, "cpu_s": what this process worked}. A call that
fails ends the process: a figure of refusals is none.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
TIMEOUT_S = 120


async def main() -> None:
    """Answer lines until there are no more."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        calls: dict[tuple[str, str], Callable[[bytes], Awaitable[object]]] = {}
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order = json.loads(line)
            target, method = key = order["target"], order["method"]
            if key not in calls:
                calls[key] = await caller(target, method, stack)
            call = partial(calls[key], read(order["request"]))
            print(json.dumps(await closed_loop(call, order)), flush=True)


def read(file: str) -> bytes:
    """Return a request."""
    return Path(file).read_bytes()


async def caller(target: str, method: str, stack: AsyncExitStack) -> Callable[[bytes], Awaitable[object]]:
    """Return what sends a request and waits for the answer."""
    if "." not in method:
        return Http(target, method).post
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=OPTIONS))
    return partial(channel.unary_unary(method), timeout=TIMEOUT_S)  # bytes to bytes


class Http:
    """The least HTTP/1.1 that posts bytes."""

    def __init__(self, target: str, path: str) -> None:
        self.host, _, self.port = target.partition(":")
        self.path = path
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes) -> bytes:
        """Post and return the answer's body; raises RuntimeError where it is not 200."""
        self.free = [pair for pair in self.free if not pair[0].at_eof()]  # a server closes those that rest
        reader, writer = self.free.pop() if self.free else await asyncio.open_connection(self.host, self.port)
        head = f"POST {self.path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        said = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if " 200 " not in said.split("\r\n", 1)[0]:
            raise RuntimeError(f"{self.path}: want 200, got {said}")
        length = int(said.partition("content-length:")[2].split(maxsplit=1)[0])
        answer = await reader.readexactly(length)
        self.free.append((reader, writer))
        return answer


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
