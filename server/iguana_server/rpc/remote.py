"""Models that only the caller sees: what is said of them at the start, and what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from iguana.v1 import attack_pb2, image_pb2, manifest_pb2
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.errors import InvalidArgument
from iguana_server.models.base import Model, Spec
from iguana_server.rpc.bounds import MAX_CLASSES, Limits
from iguana_server.rpc.faults import Faults, listed, number, text
from iguana_server.rpc.image import from_floats, from_pixels, is_on_grid
from iguana_server.rpc.words import DTYPE

METHODS: Sequence[str] = [name for name, attack in ATTACKS.items() if not attack.gradient]
DIGEST = bytes(32)  # of no pictures
_PICTURE_BYTES, _MESSAGE_BYTES = 64, 1024  # of a query beyond its pixels: a picture, in all


@dataclass(frozen=True)
class RemoteModel:
    """A model that only the caller sees, as far as it must be known."""

    spec: Spec
    sha256: ClassVar[str] = ""
    device: ClassVar[torch.device] = torch.device("cpu")
    memory_format: ClassVar[torch.memory_format] = Model.memory_format

    def answers(self, limits: Limits) -> int:
        """Return how many pictures can be answered at once, labels too, which are scores in the end."""
        return (limits.max_message_bytes - _MESSAGE_BYTES) // (4 * len(self.spec.classes))

    def queries(self, limits: Limits) -> int:
        """Return how many pictures can be asked for at once."""
        size = 4 * self._numbers + _PICTURE_BYTES
        return min((limits.max_reply_bytes - _MESSAGE_BYTES) // size, self.answers(limits))

    def room(self, n: int, images: int, logits: int) -> int:
        """Return the bytes of a table of n rows with so many columns of each kind, of its query and its answer."""
        return 4 * n * ((images + 3) * self._numbers + (logits + 3) * len(self.spec.classes))

    @property
    def _numbers(self) -> int:
        channels, height, width = self.spec.shape
        return channels * height * width


def to_model(message: attack_pb2.RemoteModel, limits: Limits, faults: Faults) -> RemoteModel:
    """Read what is said of a model. Raises InvalidArgument: without it nothing else can be read."""
    for name in ("height", "width"):
        if not 1 <= (side := getattr(message, name)) <= limits.max_side:
            faults.add(f"model.{name}", f"1..{limits.max_side} pixels", str(side))
    if message.channels not in (1, 3):
        faults.add("model.channels", "1 or 3", str(message.channels))
    if not 2 <= message.classes <= MAX_CLASSES:
        faults.add("model.classes", f"2..{MAX_CLASSES}", str(message.classes))
    faults.check()
    model = RemoteModel(
        Spec(
            name="remote",
            shape=(message.channels, message.height, message.width),
            classes=tuple(map(str, range(message.classes))),
            mean=(0.0,) * message.channels,
            std=(1.0,) * message.channels,
            resize=max(message.height, message.width),
            bucket=1,
            max_batch=1,
            description="a model of the caller's",
            licence="",
            source="",
        )
    )
    if model.queries(limits) < 1:
        want = f"a picture that fits {limits.max_reply_bytes} bytes and scores that fit {limits.max_message_bytes}"
        faults.add("model", want, f"{list(model.spec.shape)} and {message.classes} classes")
        faults.check()
    return model


def check_start(start: attack_pb2.RemoteStart, faults: Faults) -> None:
    """Note what a request must not say here, and a digest that is none."""
    request, method = start.request, start.request.WhichOneof("method")
    if request.model:
        faults.add("request.model", "none, as the model is the caller's", text(request.model))
    if request.determinism:
        name = manifest_pb2.Determinism.DESCRIPTOR.name
        faults.add(
            "request.determinism", f"no {name}, as the model is the caller's", str(request.determinism)
        )
    if request.time_limit_s != 0:  # NaN is not
        faults.add("request.time_limit_s", "0: queries are the limit", number(request.time_limit_s))
    if request.diagnose:
        faults.add("request.diagnose", "false without gradients", "true")
    if request.victim:
        faults.add("request.victim", "none, as the model is the caller's", text(request.victim))
    if request.HasField("evade"):
        faults.add("request.evade", "none, as the model is the caller's", "one")
    if method is not None and method not in METHODS:
        faults.add("request.method", f"one of {', '.join(METHODS)}, which need no gradients", method)
    size = len(DIGEST) if start.recorded else 0
    if len(start.digest) != size:
        faults.add("digest", f"{size} bytes with {start.recorded} recorded", str(len(start.digest)))


def to_query(first: int, points: torch.Tensor, samples: Sequence[int]) -> attack_pb2.RemoteQuery:
    """Ask for the answers to points [m, C, H, W] of these samples; `first` is the number of the first."""
    return attack_pb2.RemoteQuery(number=first, images=map(_to_image, points), samples=samples)


def digested(digest: bytes, points: torch.Tensor) -> bytes:
    """Return the digest of a record that goes on with these points [m, C, H, W]."""
    for array in points.permute(0, 2, 3, 1).numpy():
        digest = hashlib.sha256(digest + np.ascontiguousarray(array, "<f4").tobytes()).digest()
    return digest


def to_scores(
    answer: attack_pb2.RemoteAnswer, first: int, most: int, classes: int, *, labels: bool
) -> torch.Tensor:
    """Return the scores [1..most, classes] of an answer; labels count as 1 and 0.

    `first` is the number of the picture that waits; labels: whether they are enough. Raises InvalidArgument.
    """
    faults = Faults("answer.")
    if answer.number != first:
        faults.add("number", str(first), str(answer.number))
    kind = answer.WhichOneof("kind")
    if kind == "scores":
        _check_scores(answer.scores, most, classes, faults)
    elif kind == "labels":
        values = answer.labels.values
        if not labels:
            faults.add("labels", "scores: this attack needs more than labels", f"{len(values)} labels")
        if not 1 <= len(values) <= most or max(values) >= classes:
            faults.add("labels.values", f"1..{most} values in 0..{classes - 1}", listed(values))
    else:
        faults.add("kind", "scores or labels", "neither")
    faults.check()
    if kind == "scores":
        array = np.frombuffer(answer.scores.data, "<f4").reshape(tuple(answer.scores.shape))
        return torch.from_numpy(array.astype(np.float32))
    return torch.nn.functional.one_hot(torch.tensor(list(answer.labels.values)), classes).float()


def _check_scores(scores: image_pb2.Tensor, most: int, classes: int, faults: Faults) -> None:
    shape, size = scores.shape, len(scores.data)
    if len(shape) != 2 or not 1 <= shape[0] <= most or shape[1] != classes:
        faults.add("scores.shape", f"[1..{most}, {classes}]", listed(shape))
    elif size != (want := 4 * shape[0] * shape[1]):
        faults.add("scores.data", f"{want} bytes, {list(shape)} x 4", str(size))
    if scores.dtype != image_pb2.DTYPE_FLOAT32:
        got = DTYPE.name(scores.dtype) if scores.dtype in DTYPE.meanings else str(scores.dtype)
        faults.add("scores.dtype", "DTYPE_FLOAT32", got)


def _to_image(pixels: torch.Tensor) -> image_pb2.Image:
    return from_pixels(pixels, png=False) if is_on_grid(pixels) else from_floats(pixels)


def out_of_record(want: int, got: int) -> InvalidArgument:
    """Say that a record has more answers than the attack takes."""
    return InvalidArgument(
        "start.recorded", f"want at most {want} answers, all that the attack takes, got {got}"
    )
