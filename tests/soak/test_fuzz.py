"""Whatever is sent to whichever rpc, it is answered or refused, and the server goes on."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from hypothesis import given, seed
from hypothesis import strategies as st

from tests.soak import wire
from tests.soak.contract import RPCS, Rpc
from tests.soak.figures import Figures, ms
from tests.soak.scale import EXAMPLES, SCALE, SEED, TOGETHER
from tests.soak.sending import Answer, Metadata, send
from tests.soak.served import Served
from tests.soak.strategies import requests

AT_ONCE = 8


@pytest.fixture(scope="module")
def channel(served: Served) -> Iterator[grpc.Channel]:
    """A connection to the server."""
    with grpc.insecure_channel(served.address, options=(("grpc.enable_retries", 0),)) as channel:
        yield channel


def _after(
    served: Served,
    channel: grpc.Channel,
    figures: Figures,
    what: str,
    answers: Sequence[Answer],
    began: float,
) -> None:
    """The server is as it was; note what it said."""
    seconds = time.monotonic() - began
    gauges = served.rest()
    if "Watch" in what:
        gauges.pop("iguana_rpc_in_flight")  # a watcher's leaving is noticed later
    assert not any(gauges.values())
    served.check_sound()
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    codes = Counter(answer.code.name for answer in answers)
    figures.note(
        f"{what}: {len(answers)} in {seconds:.0f} s", dict(codes.most_common()), "no UNKNOWN, no INTERNAL"
    )
    figures.note(f"{what}: p50 / p95 / p99 / max", ms([answer.seconds for answer in answers]))


@pytest.mark.parametrize("rpc", RPCS, ids=str)
def test_structured_requests_are_answered_or_refused(
    served: Served, channel: grpc.Channel, figures: Figures, rpc: Rpc
) -> None:
    answers: list[Answer] = []
    began = time.monotonic()

    @seed(SEED)
    @EXAMPLES
    @given(st.lists(requests(rpc), min_size=TOGETHER, max_size=TOGETHER))
    def tried(lot: list[tuple[list[bytes], Metadata]]) -> None:
        for (bodies, metadata), answer in zip(lot, pool.map(sent, lot), strict=True):
            answers.append(answer)
            assert not list(answer.faults(rpc)), (rpc, [body.hex() for body in bodies], metadata)
        figures.tell(f"structured {rpc}", len(answers), SCALE.structured)

    def sent(made: tuple[list[bytes], Metadata]) -> Answer:
        bodies, metadata = made
        return send(channel, rpc, bodies, metadata)

    with ThreadPoolExecutor(TOGETHER) as pool:
        tried()
    assert len(answers) == SCALE.structured
    _after(served, channel, figures, f"structured {rpc}", answers, began)


@pytest.mark.parametrize("rpc", RPCS, ids=str)
def test_raw_bytes_are_answered_or_refused(
    served: Served, channel: grpc.Channel, figures: Figures, rpc: Rpc
) -> None:
    draw = random.Random(f"{SEED} {rpc}")
    good = [message.SerializeToString() for message in rpc.good]
    began = time.monotonic()
    answers: list[Answer] = []

    def bodies() -> list[bytes]:
        return [wire.body(draw, good) for _ in range(draw.randint(1, 3) if rpc.client_streams else 1)]

    def tried(sent: list[bytes]) -> tuple[list[bytes], Answer]:
        return sent, send(channel, rpc, sent)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        while len(answers) < SCALE.raw:
            lot = [bodies() for _ in range(min(50, SCALE.raw - len(answers)))]
            for sent, answer in pool.map(tried, lot):
                answers.append(answer)
                assert not list(answer.faults(rpc)), (rpc, [body.hex() for body in sent])
            figures.tell(f"raw {rpc}", len(answers), SCALE.raw)
    _after(served, channel, figures, f"raw {rpc}", answers, began)
