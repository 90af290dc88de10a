"""A refusal that cannot be sent ends the call in silence."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc.aio
import pytest

from iguana_server.errors import DeadlineExceeded
from iguana_server.rpc.context import Context
from iguana_server.rpc.interceptor import _refuse


class Gone:
    """A call whose caller has left, as grpc tells it: by an error where the status is to be sent."""

    async def abort_with_status(self, _: object) -> None:
        raise grpc.aio.InternalError('Failed "execute_batch"')


class Stuck:
    """A call whose reader takes nothing."""

    async def abort_with_status(self, _: object) -> None:
        await asyncio.sleep(3600)


@pytest.mark.parametrize("context", [Gone(), Stuck()], ids=["gone", "stuck"])
async def test_a_refusal_that_nobody_can_be_told_is_no_defect(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grpc logs whatever else a handler raises as a defect, with its stack."""
    monkeypatch.setattr("iguana_server.rpc.interceptor.SEND_S", 0.05)
    with pytest.raises(asyncio.CancelledError):
        await _refuse(cast("Context", context), DeadlineExceeded("deadline: passed"))
