from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.rpc.service import Service, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    """The real services around one small model."""
    async with serving() as running:
        yield running
