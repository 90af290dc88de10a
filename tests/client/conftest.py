from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from iguana import Client
from tests.client.scripted import Scripted, png, serve
from tests.rpc.service import Service, serving


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def target(scripted: Scripted) -> Iterator[str]:
    server, target = serve(scripted)
    yield target
    server.stop(0).wait()


@pytest.fixture
def client(target: str) -> Iterator[Client]:
    with Client(target, timeout_s=10) as client:
        yield client


@pytest.fixture
def cat() -> bytes:
    """A small PNG file."""
    return png(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


@pytest.fixture
def cat_file(tmp_path: Path, cat: bytes) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(cat)
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    """The real services around one small model."""
    async with serving() as running:
        yield running
