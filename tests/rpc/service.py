"""The real services: a small model, the real engine, the real server, a real channel."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import grpc.aio
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from iguana.v1 import (
    attack_pb2_grpc,
    classify_pb2_grpc,
    detect_pb2_grpc,
    generate_pb2_grpc,
    image_pb2,
    model_pb2_grpc,
    translate_pb2_grpc,
)
from iguana_server.app import Served, servicers
from iguana_server.config import Config
from iguana_server.detectors.net import SafetyNet
from iguana_server.engine.loop import Engine
from iguana_server.models.base import Model, Spec
from iguana_server.models.ensemble import Ensemble
from iguana_server.rpc.bounds import Limits
from iguana_server.rpc.server import Server, methods
from iguana_server.synthesis.base import Network
from iguana_server.synthesis.catalog import proven
from iguana_server.telemetry import Telemetry

CPU = torch.device("cpu")
SHAPE = (3, 12, 14)  # channels, height, width: all different, so that no two can be mixed up
CLASSES = (
    "common iguana, iguana, Iguana iguana",
    "American chameleon, anole, Anolis carolinensis",
    "crane",
    "crane, crane bird",
    "agama",
)
LIMITS = Limits(
    max_images=6,
    max_image_bytes=100_000,
    max_side=300,
    max_pixels=40_000,
    max_steps=50,
    max_queries=100,
    max_restarts=4,
    max_message_bytes=8 << 20,
    max_reply_bytes=1 << 20,
    max_waiting_cost=20_000_000,
    max_image_memory=1 << 30,
    max_whole_pixels=5_000,
    max_stream_items=4,
    default_deadline_s=60,
    max_deadline_s=3600,
)


def small_model(
    name: str = "small", *, shape: tuple[int, int, int] = SHAPE, classes: tuple[str, ...] = CLASSES
) -> Model:
    """A random convolutional classifier."""
    return Model(_spec(name, shape, classes), _net(shape, len(classes), 7), sha256="a1" * 32, device=CPU)


def small_ensemble(name: str = "three", members: int = 3) -> Model:
    """Random convolutional classifiers as one."""
    nets = [_net(SHAPE, len(CLASSES), seed) for seed in range(members)]
    return Model(_spec(name, SHAPE, CLASSES), Ensemble(nets), sha256="c3" * 32, device=CPU)


def _net(shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    channels, height, width = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * ((height + 1) // 2) * ((width + 1) // 2), classes),
        )


def _spec(name: str, shape: tuple[int, int, int], classes: tuple[str, ...]) -> Spec:
    channels, height, width = shape
    return Spec(
        name=name,
        shape=shape,
        classes=classes,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        resize=max(height, width) + 2,
        bucket=4,
        max_batch=8,
        description="a small one",
        licence="none",
        source="this file",
    )


@dataclass(frozen=True)
class Service:
    """Stubs of all services, and what stands behind them."""

    classify: classify_pb2_grpc.ClassifyServiceAsyncStub
    attack: attack_pb2_grpc.AttackServiceAsyncStub
    detect: detect_pb2_grpc.DetectServiceAsyncStub
    model: model_pb2_grpc.ModelServiceAsyncStub
    generate: generate_pb2_grpc.GenerateServiceAsyncStub
    translate: translate_pb2_grpc.TranslateServiceAsyncStub
    engine: Engine
    channel: grpc.aio.Channel
    address: str


@asynccontextmanager
async def serving(
    *models: Model,
    limits: Limits = LIMITS,
    options: tuple[tuple[str, Any], ...] = (),
    nets: Mapping[str, SafetyNet] | None = None,
    networks: Sequence[Network] = (),
) -> AsyncIterator[Service]:
    """A server on a free port, from start to stop."""
    served = {model.spec.name: model for model in models or (small_model(),)}
    config = Config.load(
        flags={
            "server.port": 0,
            "server.metrics_port": 0,
            "server.drain_s": 0,
            "server.drain_notice_s": 0,
            "server.reflection": False,
        }
    )
    loaded = Served(models=served)
    for network in networks:
        loaded.add(proven(network))
    with (
        ThreadPoolExecutor(2) as decoders,
        Engine(served, loaded.networks(), max_cost=limits.max_waiting_cost) as engine,
    ):
        add = servicers(limits, engine, loaded, decoders, nets or {})
        async with Telemetry(config.telemetry, methods=methods(), host="127.0.0.1", port=0) as telemetry:
            server = Server(config, telemetry, add)
            await server.start()
            address = f"127.0.0.1:{server.port}"
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                yield Service(
                    classify_pb2_grpc.ClassifyServiceStub(channel),
                    attack_pb2_grpc.AttackServiceStub(channel),
                    detect_pb2_grpc.DetectServiceStub(channel),
                    model_pb2_grpc.ModelServiceStub(channel),
                    generate_pb2_grpc.GenerateServiceStub(channel),
                    translate_pb2_grpc.TranslateServiceStub(channel),
                    engine,
                    channel,
                    address,
                )
            await server.stop(partial(asyncio.to_thread, engine.stop))


def pixels(n: int, *, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> NDArray[np.uint8]:
    """Random 8-bit pictures [n, H, W, C]."""
    channels, height, width = shape
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def tensor(array: NDArray[Any]) -> image_pb2.Image:
    """An image of the wire, as a Tensor of uint8 or float32."""
    dtype = image_pb2.DTYPE_UINT8 if array.dtype == np.uint8 else image_pb2.DTYPE_FLOAT32
    return image_pb2.Image(tensor=image_pb2.Tensor(data=array.tobytes(), dtype=dtype, shape=array.shape))


def tensors(n: int, *, seed: int = 0) -> list[image_pb2.Image]:
    """Random pictures as tensors."""
    return [tensor(one) for one in pixels(n, seed=seed)]


def file(array: NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """A picture file of these pixels."""
    target = io.BytesIO()
    Image.fromarray(array).save(target, kind, **options)
    return target.getvalue()


def opened(image: image_pb2.Image) -> NDArray[Any]:
    """The pixels [H, W, C] of an image of the wire."""
    if image.WhichOneof("kind") == "tensor":
        dtype = np.uint8 if image.tensor.dtype == image_pb2.DTYPE_UINT8 else np.dtype("<f4")
        return np.frombuffer(image.tensor.data, dtype).reshape(image.tensor.shape)
    return np.asarray(Image.open(io.BytesIO(image.encoded)))
