"""What nobody waits for any more is not computed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import grpc
import grpc.aio
import pytest

from iguana.v1 import attack_pb2, attack_pb2_grpc, classify_pb2, classify_pb2_grpc, manifest_pb2
from tests.soak.contract import MODEL, attack, pixels, tensor
from tests.soak.figures import Figures
from tests.soak.scale import SOAK
from tests.soak.served import Served, serve

CALLS, DEADLINE_S = 48, 0.25
SHARE = 0.05
PICTURES, STEPS = {"Classify": 128, "Attack": 8, "WatchAttack": 8}, 64


class Watch(threading.Thread):
    """Reads how many rows have gone forward through the model, over and over."""

    def __init__(self, served: Served) -> None:
        super().__init__(daemon=True)
        self._served, self.stopping = served, threading.Event()
        self.seen: list[tuple[float, float]] = []  # time before it was asked, rows

    def run(self) -> None:
        """Until told to stop."""
        while not self.stopping.wait(0.03):
            self.seen.append((time.monotonic(), rows(self._served)))

    def at(self, moment: float) -> float:
        """Rows at the last look that was begun before this moment, or even a little later."""
        return max(seen for began, seen in self.seen if began <= moment)


def rows(served: Served) -> float:
    """Rows that have gone forward through the model."""
    return served.metrics().get(("iguana_forward_total", (MODEL,)), 0.0)


def _request(method: str, n: int, steps: int) -> Any:
    images = map(tensor, pixels(n))
    fast = manifest_pb2.DETERMINISM_FAST
    if method == "Classify":
        return classify_pb2.ClassifyRequest(model=MODEL, images=images, determinism=fast)
    request = attack("pgd", n, determinism=fast, stop_on=attack_pb2.STOP_ON_NEVER)
    request.pgd.steps[:] = [steps]
    return request if method == "Attack" else attack_pb2.WatchAttackRequest(request=request)


@pytest.mark.parametrize("method", PICTURES if SOAK else ("Classify", "Attack"))
async def test_abandoned_work_is_not_computed(
    tmp_path_factory: pytest.TempPathFactory, figures: Figures, method: str
) -> None:
    """Of 48 calls that give up after a quarter second, nearly all of what is left then is never computed.

    The server is a new one: one that has learnt its speed refuses most of them at once.
    """
    with serve(tmp_path_factory.mktemp("deadline") / "log") as served:
        async with grpc.aio.insecure_channel(served.address) as channel:
            await channel.channel_ready()
            stub: Any = (
                classify_pb2_grpc.ClassifyServiceStub(channel)
                if method == "Classify"
                else attack_pb2_grpc.AttackServiceStub(channel)
            )
            watch, request = Watch(served), _request(method, PICTURES[method], STEPS)
            for _ in range(3):  # what the first calls cost is not the question
                warm = getattr(stub, method)(_request(method, 2, 1))
                if method == "WatchAttack":
                    assert [event async for event in warm]
                assert await warm.code() is grpc.StatusCode.OK
            begun_with, before = rows(served), Counter(served.counts())
            watch.start()
            began = time.monotonic()
            calls = [getattr(stub, method)(request, timeout=DEADLINE_S) for _ in range(CALLS)]
            codes = Counter([(await call.code()).name for call in calls])
            await asyncio.to_thread(served.rest)
            watch.stopping.set()
            await asyncio.to_thread(watch.join)
        served.check_sound()
        asked = PICTURES[method] * (1 if method == "Classify" else STEPS + 1) * codes["DEADLINE_EXCEEDED"]
        done = watch.at(began + DEADLINE_S) - begun_with
        late = rows(served) - begun_with - done
        new = Counter(served.counts()) - before
        counted = Counter({code: n for (of, code), n in new.items() if of.endswith(f"/{method}")})
    share = late / (asked - done)
    figures.note(
        f"{CALLS} calls of {method}, {DEADLINE_S} s each: rows asked, done in time, after",
        f"{asked}, {done:.0f}, {late:.0f} = {share:.1%} of what was abandoned",
        "5 %",
    )
    figures.note(
        f"{CALLS} calls of {method}: as the callers saw them, as counted", f"{dict(codes)}, {dict(counted)}"
    )
    # The server's clock starts when the call arrives: of a late one it sees the caller's leaving, not the deadline.
    # One that leaves before its message is there has never begun, and is not counted.
    assert counted.total() <= CALLS
    assert counted.keys() <= {*codes, "CANCELLED"}
    assert codes["DEADLINE_EXCEEDED"] >= CALLS // 2
    assert asked > 4 * done
    assert share <= SHARE
