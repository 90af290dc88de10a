"""A whole server, in this process and as a process of its own: it opens when ready and leaves in order."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from pydantic.fields import FieldInfo

from iguana.v1 import (
    attack_pb2,
    attack_pb2_grpc,
    classify_pb2,
    classify_pb2_grpc,
    image_pb2,
    model_pb2,
    model_pb2_grpc,
)
from iguana_server import app as application
from iguana_server import config
from iguana_server.app import App, EngineFailed
from iguana_server.config import Config, fields
from iguana_server.engine.loop import Engine
from iguana_server.errors import InvalidArgument, ModelRefused, NotFound
from iguana_server.rpc.server import Server
from iguana_server.telemetry import Telemetry
from tests.rpc import tiny
from tests.telemetry.collector import attributes, collecting

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tiny.write(tmp_path)
    sys.modules.pop("tiny_net_of_the_tests", None)


GATED = """
import time
from pathlib import Path
from torch import nn

class Gated(nn.Sequential):
    def forward(self, x):
        while (gate := Path(__file__).with_name("hang")).exists():
            gate.with_name("held").touch()
            time.sleep(0.02)
        return super().forward(x)

def net():
    return Gated(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))
"""


class Gate:
    """A file in front of the model."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def shut(self) -> None:
        self._file.touch()

    def open(self) -> None:
        self._file.unlink(missing_ok=True)

    def wait(self) -> None:
        """Wait until the model hangs."""
        began = time.monotonic()
        while not self._file.with_name("held").exists():
            assert time.monotonic() - began < 60
            time.sleep(0.02)


@pytest.fixture
def gate(manifest: Path) -> Iterator[Gate]:
    """The model hangs as long as the gate is shut."""
    (manifest.parent / "tiny_net_of_the_tests.py").write_text(GATED)
    gate = Gate(manifest.parent / "hang")
    yield gate
    gate.open()


def _config(manifest: Path, **flags: object) -> Config:
    given = {
        "server.port": 0,
        "server.metrics_port": 0,
        "server.drain_notice_s": 0,
        "models.load": [],
        "models.manifests": [manifest],
    }
    return Config.load(flags=given | flags)


async def test_app_serves_what_the_configuration_names(manifest: Path) -> None:
    async with App(_config(manifest)) as app:
        assert list(app.served.models) == ["tiny"]
        assert gc.get_freeze_count() > 0
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest(service="iguana.v1.ClassifyService")
            assert (await health.Check(asked)).status == SERVING
        loaded = app.telemetry.registry.get_sample_value("iguana_model_load_seconds", {"model": "tiny"})
        assert loaded is not None
        assert loaded > 0


def _picture() -> image_pb2.Image:
    pixels = image_pb2.Tensor(data=bytes(range(108)), dtype=image_pb2.DTYPE_UINT8, shape=[6, 6, 3])
    return image_pb2.Image(tensor=pixels)


async def test_call_and_the_passes_it_was_in_are_linked(manifest: Path) -> None:
    with collecting() as collector:
        traced = {"telemetry.otlp_endpoint": collector.endpoint, "telemetry.sample_ratio": 1}
        async with App(_config(manifest, **traced)) as app:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel:
                classify = classify_pb2_grpc.ClassifyServiceStub(channel)
                attack = attack_pb2_grpc.AttackServiceStub(channel)
                request = classify_pb2.ClassifyRequest(model="tiny", images=[_picture()])
                answer = await classify.Classify(request)
                assert len(answer.classifications[0].top) == 3
                pgd = attack_pb2.Pgd(steps=[7])
                forged = await attack.Attack(
                    attack_pb2.AttackRequest(
                        model="tiny", images=[_picture()], pgd=pgd, stop_on=attack_pb2.STOP_ON_NEVER
                    )
                )
                assert forged.results[0].outcome != attack_pb2.OUTCOME_FAILED
            value = app.telemetry.registry.get_sample_value
            assert value("iguana_samples_total", {"attack": "pgd", "outcome": "failed"}) is None
            assert (value("iguana_backward_total", {"model": "tiny"}) or 0) >= 7
    spans = {span.span_id: span for span in collector.spans}
    for name in ("iguana.v1.ClassifyService/Classify", "iguana.v1.AttackService/Attack"):
        (call,) = collector.named(name)
        assert call.links
        assert {spans[link.span_id].name for link in call.links} == {"iguana.step"}
    for step in collector.named("iguana.step"):
        assert {spans[link.span_id].name for link in step.links} <= {
            "iguana.v1.ClassifyService/Classify",
            "iguana.v1.AttackService/Attack",
        }
    (forging,) = collector.named("iguana.v1.AttackService/Attack")
    assert attributes(forging)["iguana.passes.gradient"] >= 7


def _highest(field: FieldInfo) -> int:
    return min(int(bound.le) for bound in field.metadata if hasattr(bound, "le"))


async def test_callers_can_be_told_the_largest_limits(manifest: Path) -> None:
    largest = {
        f"{group}.{name}": _highest(field)
        for group, name, field in fields()
        if group == "limits" or name in {"max_message_bytes", "max_reply_bytes"}
    }
    assert len(largest) > 10
    async with (
        App(_config(manifest, **largest)) as app,
        grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel,
    ):
        stub = model_pb2_grpc.ModelServiceStub(channel)
        told = (await stub.ListModels(model_pb2.ListModelsRequest())).limits
        assert {key: getattr(told, key.partition(".")[2]) for key in largest} == largest
        attacks = (await stub.ListAttacks(model_pb2.ListAttacksRequest())).attacks
    highs = {parameter.high for attack in attacks for parameter in attack.parameters}
    assert {largest["limits.max_steps"], largest["limits.max_restarts"]} <= highs


async def test_health_tells_a_hanging_engine_and_its_recovery(manifest: Path, gate: Gate) -> None:
    async with (
        App(_config(manifest, **{"engine.hang_s": 1})) as app,
        grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert (await watch.read()).status == SERVING
        await asyncio.sleep(2)  # idle: no reason to change
        gate.shut()
        classify = classify_pb2_grpc.ClassifyServiceStub(channel).Classify
        call = classify(classify_pb2.ClassifyRequest(model="tiny", images=[_picture()]))
        began = time.monotonic()
        assert (await watch.read()).status == NOT_SERVING
        assert 0.9 < time.monotonic() - began < 2  # at most twice the limit
        gate.open()
        began = time.monotonic()
        assert (await watch.read()).status == SERVING
        assert time.monotonic() - began < 2
        assert len((await call).classifications) == 1
        watch.cancel()
    assert not app.hangs


async def test_app_with_a_hanging_engine_ends_and_tells_its_callers(manifest: Path, gate: Gate) -> None:
    app = await App(_config(manifest, **{"server.drain_s": 0.5})).__aenter__()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel:
        gate.shut()
        classify = classify_pb2_grpc.ClassifyServiceStub(channel).Classify
        calls = [
            classify(classify_pb2.ClassifyRequest(model="tiny", images=[_picture()] * 6)) for _ in range(3)
        ]
        while app.engine.beat_age_s < 0.6:  # an idle engine beats more often
            await asyncio.sleep(0.02)
        leaving = asyncio.create_task(app.__aexit__())
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(call, 3)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert caught.value.details() == "the server is stopping"
        await asyncio.wait_for(leaving, 6)
    assert app.hangs


async def test_second_app_takes_the_place_of_the_first(manifest: Path) -> None:
    async with App(_config(manifest)) as app:
        port = app.port
    async with App(_config(manifest, **{"server.port": port})) as app:
        assert app.port == port


async def test_port_that_is_taken_is_refused_by_name(manifest: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = _config(manifest, **{"server.port": taken.getsockname()[1]})
        with pytest.raises(
            OSError, match=r"server\.port: want a free port, got .* \(Address already in use\)"
        ):
            await App(settings).__aenter__()


async def test_host_that_is_not_here_is_refused_by_name(manifest: Path) -> None:
    for host in ("nosuch.invalid", "192.0.2.1"):
        with pytest.raises(OSError, match=rf"^server\.host: want .*, got '{host}' \(.+\)$"):
            await App(_config(manifest, **{"server.host": host})).__aenter__()
        server = Server(
            _config(manifest, **{"server.host": host}), Telemetry(config.Telemetry(), methods=()), ()
        )
        with pytest.raises(OSError, match=rf"^server\.host: want .*, got '{host}' \(.+\)$"):
            await server.start()


@pytest.mark.parametrize("device", ["cuda", "cuda:999"])
async def test_device_that_is_not_here_is_refused_by_name(
    manifest: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidArgument, match=rf"^models\.device: want cpu, or cuda .*, got '{device}'$"):
        await App(_config(manifest, **{"models.device": device})).__aenter__()


async def test_unknown_model_is_refused_and_nothing_stays(manifest: Path) -> None:
    before = {task for task in asyncio.all_tasks() if not task.done()}
    with pytest.raises(NotFound, match="efficientnet-lite0"):
        async with App(_config(manifest, **{"models.load": ["efficientnet-lite00"]})):
            pass
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() if not task.done()} == before


async def test_two_models_of_one_name_are_refused(manifest: Path) -> None:
    with pytest.raises(ModelRefused, match="tiny: want a name of its own"):
        async with App(_config(manifest, **{"models.manifests": [manifest, manifest]})):
            pass


async def test_failed_engine_ends_the_server_with_an_error(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(Engine):
        def start(self) -> None:
            super().start()
            self._on_failure()

    monkeypatch.setattr(application, "Engine", Dying)
    with pytest.raises(EngineFailed):
        await asyncio.wait_for(application.serve(_config(manifest)), 30)


# --- as a process ------------------------------------------------------------------------


@contextmanager
def _process(manifest: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command in the manifest's folder."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("IGUANA_")}
    env |= {
        "PYTHONPATH": ":".join((str(manifest.parent), *sys.path)),
        "IGUANA_MODELS__LOAD": "[]",
        "IGUANA_SERVER__METRICS_PORT": "0",
        **variables,
    }
    command = [sys.executable, "-m", "iguana_server", "serve", "--server.port", "0"]
    with subprocess.Popen(
        [*command, "--models.manifests", str(manifest)],
        env=env,
        cwd=manifest.parent,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process
        process.kill()


def _ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the line that says where the process serves."""
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []
    while not lines or lines[-1]["message"] != "serving":
        lines.append(json.loads(process.stdout.readline()))
    return lines[-1]


def _health(port: int) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=True)
        return int(answer.status)


def test_process_says_where_it_is_and_leaves_in_order(manifest: Path) -> None:
    with _process(manifest, IGUANA_SERVER__DRAIN_NOTICE_S="1.5") as process:
        ready = _ready(process)
        assert ready["models"] == ["tiny"]
        assert ready["address"] == f"127.0.0.1:{ready['port']}"
        assert ready["start_s"] > 0
        assert _health(ready["port"]) == SERVING
        with urllib.request.urlopen(f"http://127.0.0.1:{ready['metrics_port']}/metrics") as answer:
            assert b'iguana_model_info{device="cpu",model="tiny"' in answer.read()
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        while _health(ready["port"]) != NOT_SERVING:
            assert time.monotonic() - began < 1
        said, errors = process.communicate(timeout=15)
        assert process.returncode == 0, errors
        assert [json.loads(line)["message"] for line in said.splitlines()] == ["stopping", "stopped"]
        assert not errors


def test_process_with_a_hanging_model_ends_by_itself(manifest: Path, gate: Gate) -> None:
    with _process(manifest, IGUANA_SERVER__DRAIN_S="2") as process:
        port = _ready(process)["port"]
        gate.shut()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            classify = classify_pb2_grpc.ClassifyServiceStub(channel).Classify
            call = classify.future(classify_pb2.ClassifyRequest(model="tiny", images=[_picture()]))
            gate.wait()
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert call.code() is grpc.StatusCode.UNAVAILABLE
        said, errors = process.communicate(timeout=30)
        assert time.monotonic() - began < 2 + 3 + 3
    assert process.returncode == 1
    assert errors.splitlines() == ["EngineHangs: the engine hangs in a model: want an end, got none"]
    messages = [json.loads(line)["message"] for line in said.splitlines()]
    assert messages == ["stopping", "calls outlived the drain"]


def test_process_that_hangs_while_it_starts_ends_by_itself(manifest: Path, gate: Gate) -> None:
    gate.shut()
    with _process(manifest) as process:
        gate.wait()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.splitlines() == ["TimeoutError: want the process to end within 12 s, got one that hangs"]


def test_process_that_cannot_serve_says_why_and_exits_1(manifest: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with _process(manifest, IGUANA_SERVER__METRICS_PORT=port) as process:
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (
        errors
        == f"OSError: server.metrics_port: want a free port, got 127.0.0.1:{port} (Address already in use)\n"
    )
    (manifest.parent / "tiny.safetensors").unlink()
    with _process(manifest) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("ModelRefused: ")
    assert "tiny.safetensors" in errors


COUNTING = """
import torch
from torch import nn

class Counting(nn.Sequential):
    seen = set()

    def forward(self, x):
        self.seen.add(torch.get_num_threads())
        return super().forward(x)

def net():
    return Counting(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))
"""


async def test_engine_alone_computes_with_many_threads(manifest: Path) -> None:
    """A second team of OpenMP threads, even asleep, makes the first slow; see process.py."""
    (manifest.parent / "tiny_net_of_the_tests.py").write_text(COUNTING)
    mine = torch.get_num_threads()
    try:
        async with App(_config(manifest, **{"threads.torch": 2})) as app:
            seen: set[int] = sys.modules["tiny_net_of_the_tests"].Counting.seen
            seen.clear()
            request = classify_pb2.ClassifyRequest(model="tiny", images=[_picture()] * 2)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel:
                await classify_pb2_grpc.ClassifyServiceStub(channel).Classify(request)
            assert seen == {2}
            assert torch.get_num_threads() == 1  # of the event loop
            assert await asyncio.to_thread(torch.get_num_threads) == 1  # of a thread that begins
    finally:
        torch.set_num_threads(mine)
