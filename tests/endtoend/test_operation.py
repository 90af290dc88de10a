"""The real server to those who run it: full, probed, scraped, sent garbage."""

from __future__ import annotations

import concurrent.futures
import urllib.request
from collections.abc import Iterator
from typing import Any, cast

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # has no stubs
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status  # type: ignore[import-untyped]  # has no stubs

from iguana import Client
from iguana.errors import Overloaded
from tests.endtoend.conftest import running
from tests.telemetry.promtool import promtool

MODEL = "fashion-mnist-cnn"
ATTACK: dict[str, Any] = {"model": MODEL, "steps": 60, "stop": "never"}
COST = 32 * 60 * 28 * 28  # of one request below, in pixels x steps


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """A server whose queue holds two of our requests."""
    flags = ("--models.load", MODEL, "--limits.max_waiting_cost", str(2 * COST))
    with running(tmp_path_factory.mktemp("small") / "log", *flags) as (_, ready):
        yield ready


def _images(n: int) -> Any:
    return np.random.default_rng(n).integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)


def test_a_full_queue_answers_when_to_come_back(small: dict[str, object]) -> None:
    """Of many large requests some are refused, with RetryInfo, and the others are answered."""
    with (
        Client(str(small["address"]), retries=0) as client,
        concurrent.futures.ThreadPoolExecutor(12) as pool,
    ):
        calls = [pool.submit(client.attack, _images(32), "pgd", seed=i, **ATTACK) for i in range(12)]
        refused = [call.exception() for call in calls if call.exception() is not None]
        answered = [call.result() for call in calls if call.exception() is None]
    assert refused
    assert answered
    for error in refused:
        assert isinstance(error, Overloaded)
        assert error.retry_after_s is not None
        assert 0.1 <= error.retry_after_s <= 60
    assert all(len(answer.results) == 32 for answer in answered)


def test_a_client_that_retries_gets_through(small: dict[str, object]) -> None:
    with (
        Client(str(small["address"]), timeout_s=120) as client,
        concurrent.futures.ThreadPoolExecutor(6) as pool,
    ):
        calls = [pool.submit(client.attack, _images(32), "pgd", seed=i, **ATTACK) for i in range(6)]
        assert all(len(call.result().results) == 32 for call in calls)


def test_garbage_is_an_invalid_argument(small: dict[str, object]) -> None:
    with grpc.insecure_channel(str(small["address"])) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/iguana.v1.AttackService/Attack"
        )
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\xff\xff\xff\xff garbage")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(cast("grpc.Call", refused.value))
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.reason == "ERROR_REASON_MALFORMED_BODY"


def test_reflection_tells_the_services(small: dict[str, object]) -> None:
    with grpc.insecure_channel(str(small["address"])) as channel:
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {f"iguana.v1.{name}Service" for name in ("Attack", "Classify", "Model")} <= services
    assert "grpc.health.v1.Health" in services


def test_metrics_after_traffic_please_promtool(small: dict[str, object]) -> None:
    with Client(str(small["address"])) as client:
        client.classify(_images(3), model=MODEL)
        client.attack(_images(3), "fgsm", model=MODEL)
    with urllib.request.urlopen(f"http://127.0.0.1:{small['metrics_port']}/metrics") as reply:
        page = reply.read()
    assert f'iguana_model_info{{device="cpu",model="{MODEL}"'.encode() in page
    assert b'iguana_samples_total{attack="fgsm"' in page
    promtool("check", "metrics", stdin=page)
