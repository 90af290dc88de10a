"""A server in this process, on a free port of this machine, for as long as an evaluation runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from iguana_server.app import App
from iguana_server.config import MIB, Config
from iguana_server.errors import InvalidArgument

FLAGS: Mapping[str, object] = {
    "server.host": "127.0.0.1",
    "server.port": 0,
    "server.metrics_port": 0,
    "server.drain_s": 0,
    "server.drain_notice_s": 0,
    "server.max_message_bytes": 128 * MIB,
    "server.max_reply_bytes": 512 * MIB,
}


def flags(model: str, manifest: Path | None, device: str) -> Mapping[str, object]:
    """Return the settings of a server of one model. Raises InvalidArgument for none, or two."""
    if bool(model) == (manifest is not None):
        raise InvalidArgument("--model", "want it or --manifest, got both or neither")
    models = (
        {"models.load": [model]} if manifest is None else {"models.load": [], "models.manifests": [manifest]}
    )
    return {**models, "models.device": device}


@contextmanager
def serving(flags: Mapping[str, object]) -> Iterator[str]:
    """Run an app in a thread with an event loop of its own; yields its address.

    Raises what App does where it cannot start: NotFound and ModelRefused for a model, InvalidArgument for a device.
    """
    config = Config.load(flags={**FLAGS, **flags})
    ready: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        over = asyncio.Event()
        async with App(config) as app:
            ready.set_result((f"127.0.0.1:{app.port}", asyncio.get_running_loop(), over))
            await over.wait()

    def live() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=live, name="server")
    thread.start()
    try:
        address, loop, over = ready.result()
        try:
            yield address
        finally:
            loop.call_soon_threadsafe(over.set)
    finally:
        thread.join()
