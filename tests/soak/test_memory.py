"""What is small on the wire and large in memory is refused at once, and leaves nothing behind."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import grpc
import pytest
from PIL import Image

from iguana.v1 import attack_pb2, classify_pb2, image_pb2
from tests.soak.contract import MODEL, RPCS, Rpc, pixels, tensor
from tests.soak.figures import Figures
from tests.soak.scale import SCALE, SOAK
from tests.soak.sending import Answer, send
from tests.soak.served import SHOWN, Served, serve
from tests.soak.wire import END, GROUP, field, tag, varint, within

MB = 1_000_000
BOMB_S, BOMB_BYTES = 0.020, 10 * MB
ITEM = 64 * 1024  # bytes of an amplified body
ITEM_S, ITEM_TIMES = 0.100, 100  # seconds of CPU, bytes for each that was sent
WHOLE_S, WHOLE_BYTES = (
    0.300,
    210 * MB,
)  # of a body of the largest size: protobuf's own 48 bytes for an empty one of 2
WHOLE = 8 * 1024 * 1024 - 1024


@dataclass(frozen=True)
class Cost:
    """What a call cost the server."""

    answer: Answer
    cpu_s: float
    peak: int  # bytes, above what was resident before


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, grpc.Channel]]:
    """A server whose resident memory shows every large block, warm."""
    with (
        serve(tmp_path_factory.mktemp("memory") / "log", env=SHOWN) as served,
        grpc.insecure_channel(served.address, options=(("grpc.max_send_message_length", -1),)) as channel,
    ):
        for rpc in RPCS:  # every decoder, and of the many attacks some: what is measured runs none
            for good in (*rpc.good[:5], *rpc.good[5:][-2:]):
                for _ in range(3):
                    send(channel, rpc, [good.SerializeToString()])
        _cost(
            served, channel, _rpc("Classify"), field(99, bytes(WHOLE))
        )  # the largest body, and a harmless one
        yield served, channel
        served.check_sound()


def _rpc(name: str) -> Rpc:
    return next(rpc for rpc in RPCS if rpc.name == name)


def _cost(
    served: Served, channel: grpc.Channel, rpc: Rpc, body: bytes, compression: grpc.Compression | None = None
) -> Cost:
    served.forget_peak()
    before, cpu_s = served.resident(), served.cpu_s()
    answer = send(channel, rpc, [body], compression=compression)
    return Cost(answer, served.cpu_s() - cpu_s, max(0, served.peak() - before))


# --- pictures --------------------------------------------------------------------------


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, *extra: bytes, rows: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _large_png() -> bytes:
    """12,000 x 12,000 grey pixels, all of them: 144 MB."""
    return _png(12_000, 12_000, rows=zlib.compress(bytes(12_001 * 12_000), 1))


def _long_png() -> bytes:
    """A header of the largest size that the format can say."""
    return _png(2**31 - 1, 2**31 - 1, rows=zlib.compress(bytes(1000)))


def _inflated_png() -> bytes:
    """28 x 28 pixels by its header, followed by rows for 100 MB."""
    return _png(28, 28, rows=zlib.compress(bytes(100 * MB), 1))


def _told_png() -> bytes:
    """28 x 28 pixels and sixty texts of 1 MB, compressed."""
    texts = [_chunk(b"zTXt", b"k%d\0\0" % i + zlib.compress(b"a" * (MB - 10))) for i in range(60)]
    return _png(28, 28, *texts, rows=zlib.compress(bytes(28 * 29)))


def _text_png() -> bytes:
    """28 x 28 pixels and one text of 100 MB, compressed."""
    text = _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100 * MB)))
    return _png(28, 28, text, rows=zlib.compress(bytes(28 * 29)))


def _profiled_png() -> bytes:
    """28 x 28 pixels and a colour profile of 100 MB, compressed."""
    profile = _chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100 * MB)))
    return _png(28, 28, profile, rows=zlib.compress(bytes(28 * 29)))


def _large_jpeg() -> bytes:
    """A small file whose header says 65,500 x 65,500."""
    data = io.BytesIO()
    Image.new("L", (16, 16)).save(data, "JPEG")
    body = bytearray(data.getvalue())
    at = body.index(b"\xff\xc0") + 5
    body[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(body)


def _large_webp() -> bytes:
    """A canvas of 16,384 x 16,384 with nothing on it."""
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\x3f\0" + b"\xff\x3f\0"
    return b"RIFF" + struct.pack("<I", len(body)) + body


BOMBS: Sequence[Callable[[], bytes]] = (
    _large_png,
    _long_png,
    _inflated_png,
    _told_png,
    _text_png,
    _profiled_png,
    _large_jpeg,
    _large_webp,
)
made = cache(lambda bomb: bomb())


def _armed(name: str, bomb: bytes) -> bytes:
    """A request of this rpc with the bomb in it, and top_k too large: some bombs are sound pictures if all is well."""
    image = image_pb2.Image(encoded=bomb)
    if name == "reference":
        forge = attack_pb2.AttackRequest(model=MODEL, images=map(tensor, pixels(1)), top_k=5000)
        forge.forge.reference.append(image)
        return forge.SerializeToString()
    looked = classify_pb2.ClassifyRequest(model=MODEL, images=[image], top_k=5000)
    forged = attack_pb2.AttackRequest(model=MODEL, images=[image], top_k=5000, fgsm=attack_pb2.Fgsm())
    messages = {
        "Classify": looked,
        "StreamClassify": classify_pb2.StreamClassifyRequest(id="a", request=looked),
        "Attack": forged,
        "WatchAttack": attack_pb2.WatchAttackRequest(request=forged),
        "StreamAttack": attack_pb2.StreamAttackRequest(id="a", request=forged),
    }
    return messages[name].SerializeToString()


def _refused(rpc: Rpc, answer: Answer) -> bool:
    """Whether it was the caller's fault."""
    if not rpc.client_streams:
        return answer.code is grpc.StatusCode.INVALID_ARGUMENT
    reply = rpc.response.FromString(answer.replies[0])
    number: int = reply.failure.code  # type: ignore[attr-defined]
    return number == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__[1:])
def test_a_decompression_bomb_is_refused_before_it_goes_off(
    open_server: tuple[Served, grpc.Channel], figures: Figures, bomb: Callable[[], bytes]
) -> None:
    served, channel = open_server
    costs: list[Cost] = []
    for name in ("Classify", "StreamClassify", "Attack", "WatchAttack", "StreamAttack", "reference"):
        rpc, body = _rpc("Attack" if name == "reference" else name), _armed(name, made(bomb))
        for _ in range(SCALE.bombs):
            costs.append(_cost(served, channel, rpc, body))
            assert not list(costs[-1].answer.faults(rpc))
            assert _refused(rpc, costs[-1].answer)
    slowest, most = sorted(cost.answer.seconds for cost in costs), max(cost.peak for cost in costs)
    said = f"{1000 * slowest[len(slowest) // 2]:.1f} ms, {1000 * slowest[-1]:.1f} ms, {most / MB:.1f} MB"
    figures.note(
        f"bomb {bomb.__name__[1:]}, {len(made(bomb))} bytes: median, slowest, peak", said, "20 ms, 10 MB"
    )
    assert slowest[len(slowest) // 2] <= BOMB_S
    assert most <= BOMB_BYTES


def test_a_picture_as_large_as_allowed_would_be_seen(open_server: tuple[Served, grpc.Channel]) -> None:
    """The measure sees 16 MB of pixels being decoded."""
    served, channel = open_server
    png = _png(4096, 4096, rows=zlib.compress(bytes(4097 * 4096), 1))
    cost = _cost(served, channel, _rpc("Classify"), _armed("Classify", png))
    assert _refused(_rpc("Classify"), cost.answer)
    assert "encoded" not in cost.answer.details
    assert cost.peak > BOMB_BYTES
    assert cost.cpu_s > BOMB_S


def test_a_message_that_grows_by_decompression_is_refused(
    open_server: tuple[Served, grpc.Channel], figures: Figures
) -> None:
    """gRPC's own compression: 200 MB of zeros are 200 KB on the wire."""
    served, channel = open_server
    body = field(99, bytes(200 * MB))
    cost = _cost(served, channel, _rpc("Classify"), body, grpc.Compression.Gzip)
    figures.note(
        "message of 200 MB, compressed: code, CPU, peak",
        f"{cost.answer.code.name}, {1000 * cost.cpu_s:.0f} ms, {cost.peak / MB:.1f} MB",
        "RESOURCE_EXHAUSTED, 10 MB",
    )
    assert cost.answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert cost.peak <= BOMB_BYTES


# --- messages --------------------------------------------------------------------------

IMAGES, GOALS = 2, 3
REQUEST = {
    **{f"Stream{name}": [2] for name in ("Classify", "Detect", "Attack", "Generate", "Translate")},
    **{f"Watch{name}": [1] for name in ("Attack", "Generate", "Translate")},
    "AttackRemote": [1, 1],
}
# Fields that refuse 5000: top_k, determinism.
SPOILT = {"Classify": 3, "Detect": 4, "Attack": 14, "Generate": 9, "Invert": 10, "Score": 4, "Translate": 5}
METHODS = {"pgd": 18, "apgd": 22, "forge": 23}


def _filled(unit: bytes, size: int) -> bytes:
    return unit * (size // len(unit))


def _amplified(rpc: Rpc, size: int) -> Iterator[tuple[str, bytes]]:
    """Bodies of about so many bytes, each dear in its own way."""
    first: Any = rpc.good[0]
    # What else a start has: parts of a message are one.
    rest = within([1], field(2, first.start.model.SerializeToString())) if rpc.name == "AttackRemote" else b""
    return ((name, rest + body) for name, body in _dear(rpc, size))


def _dear(rpc: Rpc, size: int) -> Iterator[tuple[str, bytes]]:
    good = rpc.good[0].SerializeToString()
    to = REQUEST.get(rpc.name, [])
    first: Any = rpc.good[0]
    inner = getattr(first, "start", first).request.SerializeToString() if to else good
    for name, number in SPOILT.items():  # all of it is read, and none is computed
        if name in rpc.name:
            inner += tag(number, 0) + varint(5000)
    whole = within(to, inner)
    for number, name in ((IMAGES, "images"), (GOALS, "goals")):
        yield f"empty {name}", within(to, inner + _filled(field(number, b""), size))
    yield "nested images", within(to, inner + _filled(field(IMAGES, field(2, b"")), size))
    yield "nested goals", within(to, inner + _filled(field(GOALS, within([2, 1, 2], b"")), size))
    for name, number in METHODS.items():
        for inside in (1, 2, 3, 4):
            yield f"{name}.{inside} packed", within(to, inner + within([number, inside], bytes(size)))
            yield (
                f"{name}.{inside} empty",
                within(to, inner + field(number, _filled(field(inside, b""), size))),
            )
    yield "shape packed", within(to, inner + within([IMAGES, 2, 3], b"\1" * size))
    yield "unknown fields", whole + _filled(field(99, b""), size)
    yield "unknown groups", whole + _filled(tag(99, GROUP) + tag(99, END), size)
    yield "messages again", _filled(field(to[0] if to else IMAGES, b""), size)
    yield "names", within(to, field(1, b"x" * size))


# Pipelines and watches read the same messages by the same code.
UNARY = [rpc for rpc in RPCS if not (rpc.server_streams and rpc.name.startswith(("Stream", "Watch")))]


@pytest.mark.parametrize("rpc", RPCS if SOAK else UNARY, ids=str)
def test_a_small_body_never_costs_much(
    open_server: tuple[Served, grpc.Channel], figures: Figures, rpc: Rpc
) -> None:
    served, channel = open_server
    worst, dearest = ("", 0.0), ("", 0.0)
    for name, body in _amplified(rpc, ITEM):
        cost = _cost(served, channel, rpc, body)
        assert not list(cost.answer.faults(rpc)), name
        worst, dearest = (
            max(worst, (name, cost.peak / len(body)), key=_second),
            max(dearest, (name, cost.cpu_s), key=_second),
        )
    figures.note(
        f"64 KiB to {rpc}: most memory, most CPU",
        f"x {worst[1]:.0f} ({worst[0]}), {1000 * dearest[1]:.0f} ms ({dearest[0]})",
        "x 100, 100 ms",
    )
    assert worst[1] < ITEM_TIMES
    assert dearest[1] <= ITEM_S


@pytest.mark.parametrize("rpc", RPCS if SOAK else RPCS[2:3], ids=str)
def test_the_largest_body_costs_little_too(
    open_server: tuple[Served, grpc.Channel], figures: Figures, rpc: Rpc
) -> None:
    served, channel = open_server
    worst, dearest = ("", 0.0), ("", 0.0)
    for name, body in islice(_amplified(rpc, WHOLE), None if SOAK else 3):
        cost = _cost(served, channel, rpc, body)
        assert not list(cost.answer.faults(rpc)), name
        worst = max(worst, (name, cost.peak / MB), key=_second)
        dearest = max(dearest, (name, cost.cpu_s), key=_second)
    figures.note(
        f"8 MiB to {rpc}: most memory, most CPU",
        f"{worst[1]:.0f} MB ({worst[0]}), {1000 * dearest[1]:.0f} ms ({dearest[0]})",
        "210 MB, 300 ms",
    )
    assert worst[1] * MB <= WHOLE_BYTES
    assert dearest[1] <= WHOLE_S


def _second(pair: tuple[str, float]) -> float:
    return pair[1]
