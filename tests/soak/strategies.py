"""Messages made from the descriptors: any value in any field, or a good request with a few fields spoilt."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message
from hypothesis import strategies as st

from iguana.v1 import image_pb2
from tests.soak.contract import GENERATOR, MODEL, SIDE, TRANSLATOR, Rpc, file, pixels, tensor
from tests.soak.sending import Metadata
from tests.soak.wire import field as wire_field

Draw = Callable[[st.SearchStrategy[Any]], Any]

INTS = (0, 1, 2, 3, 5, 27, 28, 29, 64, 65, 100, 255, 256, 257, 1000, 1001, 10_001, 2**16, 2**31 - 1)
BITS = {
    Field.CPPTYPE_INT32: (-(2**31), -1, *INTS),
    Field.CPPTYPE_INT64: (-(2**63), -1, *INTS, 2**63 - 1),
    Field.CPPTYPE_UINT32: (*INTS, 2**31, 2**32 - 1),
    Field.CPPTYPE_UINT64: (*INTS, 2**32, 2**63, 2**64 - 1),
    Field.CPPTYPE_ENUM: (-(2**31), -1, 0, 1, 2, 3, 4, 5, 6, 7, 99, 2**31 - 1),
}
FLOATS = (0.0, -0.0, 1.0, 8 / 255, 0.5, 5.0, 1000.0, 1e6, 3.4e38, -3.4e38, 1e-45, -1e-9)
NOT_NUMBERS = (float("nan"), float("inf"), float("-inf"))
ANY_FLOAT = st.binary(min_size=4, max_size=4).map(lambda bits: struct.unpack("<f", bits)[0])
TEXTS = (
    *(
        "",
        MODEL,
        MODEL + "\n",
        MODEL.upper(),
        "efficientnet-lite0",
        GENERATOR,
        TRANSLATOR,
        "a / b",
        "slerp(seed(1), seed(2), 256)",
        "Sandal",
        "sandal ",
        "T-shirt/top",
        "top",
    ),
    *(
        "../../etc/passwd",
        "..",
        "a/b",
        "\0",
        "%s%n{0}",
        '"\n{"level": "error"}',
        "\x1b[31m",
        "ä" * 64,
        "𐍈" * 65,
    ),
    *("x" * 64, "x" * 65, "x" * 70_000, "grpc.health.v1.Health", "iguana.v1.AttackService"),
)
BYTES = st.one_of(
    st.binary(max_size=64), st.sampled_from([b"", bytes(784), bytes(783), bytes(3136), b"\xff" * 3136])
)
UNKNOWN = st.builds(wire_field, st.integers(25, 2**29 - 1), st.binary(max_size=64))
CALLERS = st.sampled_from(["", "a", "x" * 64, "x" * 65, "a b", "../..", "{}", "'--", "~" * 1000])
METADATA = st.one_of(
    st.just(()),
    st.lists(CALLERS.map(lambda name: ("iguana-caller", name)), min_size=1, max_size=3),
    st.sampled_from(
        [
            (("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"),),
            (("traceparent", "garbage"), ("tracestate", "," * 500)),
            (("iguana-caller-bin", b"\0\xff"), ("x" * 100, "y" * 1000)),
        ]
    ),
)


def requests(rpc: Rpc) -> st.SearchStrategy[tuple[list[bytes], Metadata]]:
    """The messages of a call, and its metadata."""

    @st.composite
    def made(
        draw: Draw,
    ) -> tuple[list[bytes], Metadata]:  # no argument: it would be shown with all its messages
        n = draw(st.integers(1, 3)) if rpc.client_streams else 1
        return [_request(draw, rpc).SerializeToString() + _unknown(draw) for _ in range(n)], draw(METADATA)

    return made()


def _request(draw: Draw, rpc: Rpc) -> Message:
    """Three in four are good but for a few fields, and some of these are good."""
    if draw(st.integers(0, 3)) == 0:
        made = rpc.request()
        _fill(draw, made)
        return made
    request = rpc.request()
    request.CopyFrom(rpc.good[draw(st.integers(0, len(rpc.good) - 1))])
    for _ in range(draw(st.integers(0, 3))):
        _spoil(draw, request)
    return request


def _unknown(draw: Draw) -> bytes:
    """Fields that no message has."""
    return b"".join(draw(st.lists(UNKNOWN, max_size=3))) if draw(st.integers(0, 7)) == 0 else b""


def _fill(draw: Draw, message: Message) -> None:
    """Set any of the fields; of a oneof the last that is set remains."""
    for field in message.DESCRIPTOR.fields:
        if draw(st.booleans()):
            _set(draw, message, field)


def _spoil(draw: Draw, message: Message) -> None:
    """Set one field, of this message or of one inside of it."""
    if not message.DESCRIPTOR.fields:
        return
    field = draw(st.sampled_from(list(message.DESCRIPTOR.fields)))
    if field.message_type is not None and draw(st.integers(0, 3)) > 0:
        if field.is_repeated:
            there = getattr(message, field.name)
            _spoil(draw, there[draw(st.integers(0, len(there) - 1))] if len(there) else there.add())
        else:
            inner = getattr(message, field.name)
            inner.SetInParent()
            _spoil(draw, inner)
    else:
        _set(draw, message, field)


def _set(draw: Draw, message: Message, field: Any) -> None:
    """Set a field to a value of its type, a repeated one to any number of them."""
    if not field.is_repeated:
        if field.message_type is None:
            setattr(message, field.name, draw(_value(field)))
        else:
            inner = getattr(message, field.name)
            inner.SetInParent()
            _fill_image(draw, inner) if isinstance(inner, image_pb2.Image) else _fill(draw, inner)
        return
    values = getattr(message, field.name)
    n = draw(st.sampled_from([0, 1, 1, 2, 2, 3, 257, 2000]))
    if draw(st.booleans()):
        message.ClearField(field.name)
    if field.message_type is None:
        few = draw(st.lists(_value(field), min_size=1, max_size=3))
        values.extend((few * n)[:n])
    elif n > 3:
        for _ in range(n):
            values.add()
    else:
        for _ in range(n):
            inner = values.add()
            _fill_image(draw, inner) if isinstance(inner, image_pb2.Image) else _fill(draw, inner)


def _value(field: Any) -> st.SearchStrategy[Any]:
    """Values of a field that is no message."""
    kind = field.cpp_type
    if kind in (Field.CPPTYPE_FLOAT, Field.CPPTYPE_DOUBLE):
        return st.one_of(st.sampled_from(FLOATS), st.sampled_from(NOT_NUMBERS), ANY_FLOAT)
    if kind == Field.CPPTYPE_BOOL:
        return st.booleans()
    if kind == Field.CPPTYPE_STRING:
        text = (
            BYTES
            if field.type == Field.TYPE_BYTES
            else st.one_of(st.sampled_from(TEXTS), st.text(max_size=80))
        )
        return text if field.name != "model" else st.one_of(st.just(MODEL), text)
    return st.sampled_from(BITS[kind])


def _fill_image(draw: Draw, image: image_pb2.Image) -> None:
    """A picture, sound or not."""
    if draw(st.integers(0, 4)) == 0:
        _fill(draw, image)
    else:
        image.CopyFrom(picture(draw(st.integers(0, 2**32 - 1))))


def picture(seed: int) -> image_pb2.Image:
    """A picture of the right or the wrong size, whole, cut, or with bytes changed."""
    own = random.Random(seed)
    array = pixels(1, seed)[0]
    kind = own.choice(("tensor", "float", "size", "PNG", "JPEG", "WEBP", "GIF", "BMP"))
    if kind == "tensor":
        return tensor(array)
    if kind == "float":
        values = (array / 255).astype(np.float32)
        if own.random() < 0.5:
            values[own.randrange(SIDE), own.randrange(SIDE)] = own.choice(
                (*NOT_NUMBERS, 1e38, -1.0, 1.0 + 1e-7)
            )
        return tensor(values)
    if kind == "size":
        return tensor(np.zeros((own.choice((0, 1, 27, 29, 56)), SIDE, own.choice((1, 3))), np.uint8))
    bad = bytearray(file(array, kind))
    for _ in range(own.choice((0, 0, 1, 3, 30))):
        bad[own.randrange(len(bad))] = own.randrange(256)
    if own.random() < 0.3:
        del bad[own.randrange(len(bad)) :]
    return image_pb2.Image(encoded=bytes(bad))
