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
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from iguana.v1 import attack_pb2, attack_pb2_grpc, classify_pb2, classify_pb2_grpc, image_pb2
from iguana_server import app as application
from iguana_server.app import App, EngineFailed
from iguana_server.config import Config
from iguana_server.engine.loop import Engine
from iguana_server.errors import ModelRefused, NotFound
from tests.rpc import tiny
from tests.telemetry.collector import attributes, collecting

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tiny.write(tmp_path)
    sys.modules.pop("tiny_net_of_the_tests", None)


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
        assert list(app.models) == ["tiny"]
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


async def test_second_app_takes_the_place_of_the_first(manifest: Path) -> None:
    async with App(_config(manifest)) as app:
        port = app.port
    async with App(_config(manifest, **{"server.port": port})) as app:
        assert app.port == port


async def test_port_that_is_taken_is_refused_by_name(manifest: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = _config(manifest, **{"server.port": taken.getsockname()[1]})
        with pytest.raises(OSError, match=r"server\.port: want a free port"):
            await App(config).__aenter__()


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


def test_process_that_cannot_serve_says_why_and_exits_1(manifest: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with _process(manifest, IGUANA_SERVER__METRICS_PORT=port) as process:
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == f"OSError: server.metrics_port: want a free port, got 127.0.0.1:{port}\n"
    (manifest.parent / "tiny.safetensors").unlink()
    with _process(manifest) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("ModelRefused: ")
    assert "tiny.safetensors" in errors
