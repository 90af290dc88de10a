"""The rpcs that a server answers, and good requests of each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from iguana.v1 import (
    attack_pb2,
    classify_pb2,
    detect_pb2,
    generate_pb2,
    image_pb2,
    model_pb2,
    translate_pb2,
    verdict_pb2,
)
from iguana_server.attacks.catalog import ATTACKS

MODEL, GENERATOR, TRANSLATOR = "fashion-mnist-cnn", "fashion-mnist-gan", "sneaker-to-boot"
SIDE = 28
CLASSES = 10


@dataclass(frozen=True, repr=False)
class Rpc:
    """One method: its path, its shape, its messages and good requests."""

    path: str
    request: type[Message]
    response: type[Message]
    good: Sequence[Message]
    client_streams: bool = False
    server_streams: bool = False
    endless: bool = False  # the caller reads one answer and leaves

    @property
    def name(self) -> str:
        """The method without its service."""
        return self.path.rpartition("/")[2]

    def __repr__(self) -> str:
        return self.name


def pixels(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random pictures [n, 28, 28, 1]."""
    return np.random.default_rng(seed).integers(0, 256, (n, SIDE, SIDE, 1), dtype=np.uint8)


def tensor(array: NDArray[Any]) -> image_pb2.Image:
    """Pixels [H, W, C], uint8 or float32, as they are."""
    dtype = image_pb2.DTYPE_UINT8 if array.dtype == np.uint8 else image_pb2.DTYPE_FLOAT32
    return image_pb2.Image(tensor=image_pb2.Tensor(data=array.tobytes(), dtype=dtype, shape=array.shape))


def file(array: NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    """Pixels [H, W, 1] as a picture file."""
    target = io.BytesIO()
    Image.fromarray(array[:, :, 0]).save(target, kind, **options)
    return target.getvalue()


def opened(image: image_pb2.Image) -> NDArray[np.uint8]:
    """The pixels [28, 28] of an image that came back on the 8-bit grid."""
    if image.WhichOneof("kind") == "tensor":
        return np.frombuffer(image.tensor.data, np.uint8).reshape(image.tensor.shape[:2])
    return np.asarray(Image.open(io.BytesIO(image.encoded)))


def attack(name: str, n: int = 1, **fields: Any) -> attack_pb2.AttackRequest:
    """A good request of this attack with few steps or queries."""
    request = attack_pb2.AttackRequest(model=MODEL, images=map(tensor, pixels(n)), **fields)
    method = getattr(request, name)
    method.SetInParent()
    if "steps" in method.DESCRIPTOR.fields_by_name:
        method.steps.append(3)
    if "queries" in method.DESCRIPTOR.fields_by_name:
        method.queries.append(9)
    return request


def _attacks() -> list[attack_pb2.AttackRequest]:
    requests = [attack(name, 2) for name in ATTACKS]
    ref = attack_pb2.ClassRef(name="Sandal")
    goals = [
        attack_pb2.Goal(targeted=attack_pb2.Targeted(target=ref)),
        attack_pb2.Goal(untargeted=attack_pb2.Untargeted(label=attack_pb2.ClassRef(index=3))),
    ]
    full = attack("pgd", 2, goals=goals, seed=7, top_k=3, return_clean=True, time_limit_s=5)
    full.output_grid, full.encoding = attack_pb2.OUTPUT_GRID_FLOAT, image_pb2.ENCODING_TENSOR
    full.pgd.epsilon.extend([0.1, 0.2])
    full.pgd.random_start.append(True)
    full.pgd.restarts = 2
    pulled = attack("forge", 2)
    pulled.forge.reference.append(tensor(pixels(1, seed=1)[0]))
    return [*requests, full, pulled]


def _starts() -> list[attack_pb2.AttackRemoteRequest]:
    model = attack_pb2.RemoteModel(height=SIDE, width=SIDE, channels=1, classes=CLASSES)
    requests = [attack(name, 2) for name, kind in ATTACKS.items() if not kind.gradient]
    for request in requests:
        request.ClearField("model")
    return [
        attack_pb2.AttackRemoteRequest(start=attack_pb2.RemoteStart(request=request, model=model))
        for request in requests
    ]


def _classifications() -> list[classify_pb2.ClassifyRequest]:
    grey = pixels(3)
    images = [
        tensor(grey[0]),
        tensor((grey[1] / 255).astype(np.float32)),
        *(image_pb2.Image(encoded=file(grey[2], kind)) for kind in ("PNG", "JPEG", "WEBP")),
    ]
    return [
        classify_pb2.ClassifyRequest(model=MODEL, images=[image], top_k=k, logits=k > 2)
        for k, image in enumerate(images)
    ]


def _detections() -> list[detect_pb2.DetectRequest]:
    guard = verdict_pb2.Guard(detectors=["squeeze", "lid"], false_positive_rate=0.1)
    return [
        detect_pb2.DetectRequest(model=MODEL, images=map(tensor, pixels(2)), top_k=2),
        detect_pb2.DetectRequest(model=MODEL, images=map(tensor, pixels(1)), guard=guard),
    ]


def _generations() -> list[generate_pb2.GenerateRequest]:
    ref = attack_pb2.ClassRef(name="Sandal")
    latents = image_pb2.Tensor(data=bytes(400), dtype=image_pb2.DTYPE_FLOAT32, shape=[1, 100])
    codes = [generate_pb2.Code(name="a", seed=1), generate_pb2.Code(name="b", seed=2)]
    expressions = ["c = a - b", "slerp(a, mean(c, seed(1..9)), 3)"]
    return [
        generate_pb2.GenerateRequest(model=GENERATOR, seeds=range(3), truncation=0.5, return_latents=True),
        generate_pb2.GenerateRequest(model=GENERATOR, latents=latents, labels=[ref]),
        generate_pb2.GenerateRequest(model=GENERATOR, codes=codes, expressions=expressions, labels=[ref]),
    ]


def _inversions() -> list[generate_pb2.InvertRequest]:
    ref = attack_pb2.ClassRef(index=3)
    images = [tensor(one) for one in pixels(2)]
    return [
        generate_pb2.InvertRequest(
            model=GENERATOR, images=images, labels=[ref], steps=[3], restarts=2, rate=[0.1]
        )
    ]


def _scores() -> list[generate_pb2.ScoreRequest]:
    ref = attack_pb2.ClassRef(index=3)
    images = [tensor(one) for one in pixels(2)]
    return [generate_pb2.ScoreRequest(model=GENERATOR, images=images, labels=[ref])]


def _translations() -> list[translate_pb2.TranslateRequest]:
    grey = pixels(3)
    images = [tensor(grey[0]), tensor(grey[1, :20]), image_pb2.Image(encoded=file(grey[2]))]
    return [translate_pb2.TranslateRequest(model=TRANSLATOR, images=images)]


_CLASSIFY, _ATTACK, _DETECT, _MODEL, _GENERATE, _TRANSLATE = (
    f"/iguana.v1.{name}Service/"
    for name in ("Classify", "Attack", "Detect", "Model", "Generate", "Translate")
)
_HEALTH = "/grpc.health.v1.Health/"
_probes = [health_pb2.HealthCheckRequest(service=name) for name in ("", "iguana.v1.AttackService")]

RPCS = (
    Rpc(
        _CLASSIFY + "Classify",
        classify_pb2.ClassifyRequest,
        classify_pb2.ClassifyResponse,
        _classifications(),
    ),
    Rpc(
        _CLASSIFY + "StreamClassify",
        classify_pb2.StreamClassifyRequest,
        classify_pb2.StreamClassifyResponse,
        [classify_pb2.StreamClassifyRequest(id="a", request=request) for request in _classifications()],
        client_streams=True,
        server_streams=True,
    ),
    Rpc(_ATTACK + "Attack", attack_pb2.AttackRequest, attack_pb2.AttackResponse, _attacks()),
    Rpc(
        _ATTACK + "WatchAttack",
        attack_pb2.WatchAttackRequest,
        attack_pb2.WatchAttackResponse,
        [attack_pb2.WatchAttackRequest(request=request, every_steps=1) for request in _attacks()],
        server_streams=True,
    ),
    Rpc(
        _ATTACK + "StreamAttack",
        attack_pb2.StreamAttackRequest,
        attack_pb2.StreamAttackResponse,
        [attack_pb2.StreamAttackRequest(id="a", request=request) for request in _attacks()],
        client_streams=True,
        server_streams=True,
    ),
    Rpc(_DETECT + "Detect", detect_pb2.DetectRequest, detect_pb2.DetectResponse, _detections()),
    Rpc(
        _DETECT + "StreamDetect",
        detect_pb2.StreamDetectRequest,
        detect_pb2.StreamDetectResponse,
        [detect_pb2.StreamDetectRequest(id="a", request=request) for request in _detections()],
        client_streams=True,
        server_streams=True,
    ),
    Rpc(
        _ATTACK + "AttackRemote",
        attack_pb2.AttackRemoteRequest,
        attack_pb2.AttackRemoteResponse,
        _starts(),
        client_streams=True,
        server_streams=True,
    ),
    Rpc(
        _GENERATE + "Generate",
        generate_pb2.GenerateRequest,
        generate_pb2.GenerateResponse,
        _generations(),
    ),
    Rpc(
        _GENERATE + "WatchGenerate",
        generate_pb2.WatchGenerateRequest,
        generate_pb2.WatchGenerateResponse,
        [generate_pb2.WatchGenerateRequest(request=request) for request in _generations()],
        server_streams=True,
    ),
    Rpc(
        _GENERATE + "StreamGenerate",
        generate_pb2.StreamGenerateRequest,
        generate_pb2.StreamGenerateResponse,
        [generate_pb2.StreamGenerateRequest(id="a", request=request) for request in _generations()],
        client_streams=True,
        server_streams=True,
    ),
    Rpc(_GENERATE + "Invert", generate_pb2.InvertRequest, generate_pb2.InvertResponse, _inversions()),
    Rpc(_GENERATE + "Score", generate_pb2.ScoreRequest, generate_pb2.ScoreResponse, _scores()),
    Rpc(
        _TRANSLATE + "Translate",
        translate_pb2.TranslateRequest,
        translate_pb2.TranslateResponse,
        _translations(),
    ),
    Rpc(
        _TRANSLATE + "WatchTranslate",
        translate_pb2.WatchTranslateRequest,
        translate_pb2.WatchTranslateResponse,
        [translate_pb2.WatchTranslateRequest(request=request) for request in _translations()],
        server_streams=True,
    ),
    Rpc(
        _TRANSLATE + "StreamTranslate",
        translate_pb2.StreamTranslateRequest,
        translate_pb2.StreamTranslateResponse,
        [translate_pb2.StreamTranslateRequest(id="a", request=request) for request in _translations()],
        client_streams=True,
        server_streams=True,
    ),
    Rpc(
        _MODEL + "ListModels",
        model_pb2.ListModelsRequest,
        model_pb2.ListModelsResponse,
        [model_pb2.ListModelsRequest()],
    ),
    Rpc(
        _MODEL + "ListAttacks",
        model_pb2.ListAttacksRequest,
        model_pb2.ListAttacksResponse,
        [model_pb2.ListAttacksRequest()],
    ),
    Rpc(_HEALTH + "Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse, _probes),
    Rpc(
        _HEALTH + "Watch",
        health_pb2.HealthCheckRequest,
        health_pb2.HealthCheckResponse,
        _probes,
        server_streams=True,
        endless=True,
    ),
)
