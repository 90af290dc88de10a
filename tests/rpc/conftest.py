from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.made import small_generator, small_translator
from tests.rpc.service import Service, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    """The real services around one small model of each kind."""
    networks = small_generator("clothes", conditional=True), small_translator("painter", styled=True)
    async with serving(networks=networks) as running:
        yield running
