"""Attacks on a model that is here and nowhere else: the server asks, a callable answers.

The whole attack follows from the request and the answers. So a stream that breaks is opened again, the answers
so far (a `Transcript`) are sent first, and the victim is never asked twice.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iguana import retry
from iguana.errors import IguanaError, InternalError, Unavailable, invalid
from iguana.image import ImagesLike, from_tensor
from iguana.parameter import uint
from iguana.pipeline import STREAM_BREAKS
from iguana.request import AttackOptions, attack_request
from iguana.v1 import attack_pb2, image_pb2

Victim: TypeAlias = Callable[[NDArray[np.float32]], Any]
"""Pictures [m, H, W, C], float32 in [0, 1], to scores [m, classes] (the largest wins) or labels [m]."""
AsyncVictim: TypeAlias = Callable[[NDArray[np.float32]], Awaitable[Any]]

_START = bytes(32)
_FRAME_BYTES = 1024  # of a message beyond its answers
_LOTS_PER_S = 10  # calls of the victim a second, under a limit


@dataclass
class Transcript:
    """What a victim has said so far, in the order it was asked: an attack goes on from there.

    Give the same one to `Client.attack_remote` again, with the same arguments, after whatever ended it.
    """

    attack: str = ""
    """What the answers are for: the SHA-256 of the request, or "" before it began."""
    digest: bytes = _START
    """Of the pictures that were asked for, one after another."""
    answers: list[NDArray[Any]] = field(default_factory=list, repr=False)
    """Scores [m, classes] float32 or labels [m] int64, a call of the victim each."""

    def __len__(self) -> int:
        """How many pictures the victim was shown."""
        return sum(map(len, self.answers))

    def add(self, pictures: NDArray[np.float32], said: NDArray[Any]) -> None:
        """Note the answers [m] or [m, classes] to pictures [m, H, W, C]."""
        self.answers.append(said)
        for picture in pictures:
            pixels = np.ascontiguousarray(picture, "<f4").tobytes()
            self.digest = hashlib.sha256(self.digest + pixels).digest()

    def save(self, path: str | Path) -> None:
        """Write a file (.npz) for `load`."""
        answers = np.concatenate(self.answers) if self.answers else np.empty(0)
        with Path(path).open("wb") as file:
            np.savez(
                file, attack=np.array(self.attack), digest=np.frombuffer(self.digest, "u1"), answers=answers
            )

    @classmethod
    def load(cls, path: str | Path) -> Transcript:
        """Read a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            answers = file["answers"]
            return cls(str(file["attack"]), file["digest"].tobytes(), [answers] if len(answers) else [])


class Pace:
    """So many pictures a second, evenly."""

    def __init__(self, per_s: float | None) -> None:
        if per_s is not None and not (math.isfinite(per_s) and per_s > 0):
            raise invalid("max_queries_per_second", "None or a number above 0", per_s)
        self._per_s, self._next = per_s, 0.0

    @property
    def lot(self) -> int | None:
        """The most pictures of one call of the victim; None is any number."""
        return None if self._per_s is None else max(1, int(self._per_s / _LOTS_PER_S))

    def wait_s(self) -> float:
        """Seconds from now until the victim may be called again."""
        return max(0.0, self._next - time.monotonic())

    def called(self, pictures: int) -> None:
        """Note that the victim is called now: a call that comes late puts off the next."""
        if self._per_s is not None:
            self._next = time.monotonic() + pictures / self._per_s


class Remote:
    """One attack on a victim, over as many streams as it takes. It sends nothing itself."""

    def __init__(
        self, start: attack_pb2.RemoteStart, transcript: Transcript | None, pace: Pace, max_bytes: int
    ) -> None:
        self._start, self._classes = start, start.model.classes
        self.transcript = Transcript() if transcript is None else transcript
        self.pace = pace
        self._most = max(1, (max_bytes - _FRAME_BYTES) // (4 * self._classes))  # answers of a message
        attack = hashlib.sha256(start.SerializeToString(deterministic=True)).hexdigest()
        if self.transcript.attack not in ("", attack):
            raise invalid("transcript", "that of the same call", "another attack's")
        self.transcript.attack = attack

    def opening(self) -> Generator[attack_pb2.AttackRemoteRequest]:
        """What a new stream begins with: the start, and all that the victim has said."""
        start = attack_pb2.RemoteStart()
        start.CopyFrom(self._start)
        start.recorded = len(self.transcript)
        if start.recorded:
            start.digest = self.transcript.digest
        known = list(self.transcript.answers)  # as it is now: the stream's thread reads on
        return self._opening(start, known)

    def _opening(
        self, start: attack_pb2.RemoteStart, known: list[NDArray[Any]]
    ) -> Generator[attack_pb2.AttackRemoteRequest]:
        yield attack_pb2.AttackRemoteRequest(start=start)
        number = 0
        for said in _lots(known, self._most):
            yield _message(number, said)
            number += len(said)

    def lots(self, query: attack_pb2.RemoteQuery) -> Iterator[NDArray[np.float32]]:
        """The pictures of a query, as many at once as the victim may be shown."""
        if query.number != len(self.transcript):
            raise InternalError(f"query.number: want {len(self.transcript)}, got {query.number}")
        pictures = np.stack([_pixels(image) for image in query.images])
        lot = min(self.pace.lot or len(pictures), self._most)
        for i in range(0, len(pictures), lot):
            yield pictures[i : i + lot]

    def heard(self, pictures: NDArray[np.float32], said: object) -> attack_pb2.AttackRemoteRequest:
        """Note what the victim said, and write it down for the server."""
        answer = _checked(said, len(pictures), self._classes)
        number = len(self.transcript)
        if self.transcript.answers and self.transcript.answers[0].ndim != answer.ndim:
            raise invalid("victim", "scores always or labels always", "now these, now those")
        self.transcript.add(pictures, answer)
        return _message(number, answer)


class Reopening:
    """Counts how often in a row a stream broke before the victim was asked anything new."""

    def __init__(self, retries: int, patience_s: float) -> None:
        self._retries, self._patience_s = retries, patience_s
        self._seen = -1
        self._failures, self._deadline = 0, retry.Deadline(patience_s)

    def pause_s(self, error: IguanaError, heard: int) -> float:
        """Seconds to wait before opening another, with so many answers; raises `error` if that is of no use."""
        if heard > self._seen:
            self._seen, self._failures, self._deadline = heard, 0, retry.Deadline(self._patience_s)
        pause_s = retry.overload_pause_s(error, self._deadline, self._retries)
        if pause_s is not None:
            return pause_s
        self._failures += 1
        if error.code not in STREAM_BREAKS or self._failures > self._retries:
            raise error
        return retry.reconnect_pause_s(self._failures)


def closed() -> IguanaError:
    """The error of a stream that the server closed too early."""
    return Unavailable("the server closed the stream before the attack was over")


def unread(kind: str | None) -> IguanaError:
    """The error of a message that this client does not know."""
    return InternalError(f"attack_remote: want query, result or summary, got {kind}; is the client too old?")


def remote_start(
    images: ImagesLike,
    method: str,
    classes: int,
    input_shape: tuple[int, int, int] | None,
    options: AttackOptions,
) -> attack_pb2.RemoteStart:
    """The start of `Client.attack_remote`; `input_shape` is [H, W, C], None is that of the first image."""
    for name in ("model", "strict", "victim", "evade"):
        if name in options:
            raise invalid(name, "none, as the model is the caller's", repr(options.get(name)))
    request = attack_request(images, method, **options)
    request.ClearField("model")
    request.ClearField("determinism")
    if input_shape is None:
        if not (request.images and request.images[0].HasField("tensor")):
            raise invalid("input_shape", "(height, width, channels) with images that are not arrays", "None")
        height, width, channels = request.images[0].tensor.shape
    else:
        if len(input_shape) != 3:
            raise invalid("input_shape", "(height, width, channels)", input_shape)
        height, width, channels = (uint("input_shape", number) for number in input_shape)
    model = attack_pb2.RemoteModel(
        height=height, width=width, channels=channels, classes=uint("classes", classes)
    )
    if not model.classes:
        raise invalid("classes", "2 or more", classes)
    return attack_pb2.RemoteStart(request=request, model=model)


def _lots(answers: list[NDArray[Any]], most: int) -> Iterator[NDArray[Any]]:
    """The same answers in messages' lots."""
    if answers:
        together = np.concatenate(answers)
        for i in range(0, len(together), most):
            yield together[i : i + most]


def _pixels(image: image_pb2.Image) -> NDArray[np.float32]:
    array = from_tensor(image.tensor)
    return array.astype(np.float32) / np.float32(255) if array.dtype == np.uint8 else array.astype("f4")


def _checked(said: object, n: int, classes: int) -> NDArray[Any]:
    """Scores [n, classes] float32 or labels [n] int64."""
    array = np.asarray(said)
    if array.shape == (n, classes) and np.issubdtype(array.dtype, np.floating):
        return np.ascontiguousarray(array, np.float32)
    if array.shape == (n,) and np.issubdtype(array.dtype, np.integer):
        if not (array.min() >= 0 and array.max() < classes):
            raise invalid("victim", f"labels in 0..{classes - 1}", f"{array.min()}..{array.max()}")
        return np.ascontiguousarray(array, np.int64)
    want = f"scores [{n}, {classes}] or whole labels [{n}]"
    raise invalid("victim", want, f"{array.dtype} {list(array.shape)}")


def _message(number: int, said: NDArray[Any]) -> attack_pb2.AttackRemoteRequest:
    answer = attack_pb2.RemoteAnswer(number=number)
    if said.ndim == 1:
        answer.labels.values.extend(said.tolist())
    else:
        answer.scores.data = said.astype("<f4").tobytes()
        answer.scores.dtype = image_pb2.DTYPE_FLOAT32
        answer.scores.shape.extend(said.shape)
    return attack_pb2.AttackRemoteRequest(answer=answer)
