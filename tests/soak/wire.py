"""Bodies made of bytes: noise, good messages with faults, and what is dear to parse."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

LENGTH, GROUP, END = 2, 3, 4  # wire types


def varint(value: int) -> bytes:
    """A number as the wire has it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, kind: int) -> bytes:
    """What comes before a field."""
    return varint(number << 3 | kind)


def field(number: int, body: bytes) -> bytes:
    """A field of bytes, text, message or packed numbers."""
    return tag(number, LENGTH) + varint(len(body)) + body


def within(path: Sequence[int], body: bytes) -> bytes:
    """The body inside of messages in messages, outermost first."""
    for number in reversed(path):
        body = field(number, body)
    return body


def body(draw: random.Random, good: Sequence[bytes]) -> bytes:
    """One body, of any kind."""
    return draw.choice(_KINDS)(draw, draw.choice(good))


def _noise(draw: random.Random, _: bytes) -> bytes:
    return draw.randbytes(draw.choice((0, 1, 2, 7, 40, 300, 5000)))


def _flipped(draw: random.Random, good: bytes) -> bytes:
    bad = bytearray(good)
    for _ in range(draw.choice((1, 1, 1, 2, 5, 20)) if bad else 0):
        bad[_early(draw, len(bad))] ^= 1 << draw.randrange(8)
    return bytes(bad)


def _cut(draw: random.Random, good: bytes) -> bytes:
    return good[: draw.randrange(len(good) + 1)]


def _spliced(draw: random.Random, good: bytes) -> bytes:
    """Something is left out, put in, or there twice."""
    start, stop = sorted((_early(draw, len(good) + 1), _early(draw, len(good) + 1)))
    middle = draw.choice((b"", good[start:stop] * 2, draw.randbytes(draw.randrange(1, 9))))
    return good[:start] + middle + good[stop:]


def _merged(draw: random.Random, good: bytes) -> bytes:
    return good + _flipped(draw, good)


def _deep(draw: random.Random, good: bytes) -> bytes:
    """Messages in messages, or groups, that end or do not."""
    number, depth = draw.randrange(1, 30), draw.choice((5, 50, 99, 100, 101, 500, 3000))
    if draw.random() < 0.5:
        return good + within([number] * min(depth, 500), b"")
    ends = draw.choice((depth, depth, depth - 1, 0))
    return good + tag(number, GROUP) * depth + tag(number, END) * ends


def _many(draw: random.Random, good: bytes) -> bytes:
    """A field without anything in it, very often."""
    inside = draw.choice(([], [2], [1], [18], [23], [1, 2]))
    empty = tag(draw.randrange(1, 25), LENGTH) + b"\0"
    return good + within(inside, empty * draw.choice((100, 5000)))


def _packed(draw: random.Random, good: bytes) -> bytes:
    """Many numbers in one field of the attack."""
    numbers = draw.randbytes(draw.choice((3, 4, 400, 40_000)))
    return good + within([draw.randrange(16, 25)], field(draw.randrange(1, 7), numbers))


def _odd(draw: random.Random, good: bytes) -> bytes:
    """A varint too long, field 0, a wire type that is none, a length beyond the end or beyond any."""
    odd = (
        b"\x80" * 11,
        b"\0\0",
        b"\x07",
        b"\x0e\1",
        b"\x12\x7f",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    )
    place = _early(draw, len(good) + 1)
    return good[:place] + draw.choice(odd) + good[place:]


def _early(draw: random.Random, n: int) -> int:
    """A place below n: as often among the first forty, where the structure is, as anywhere."""
    return draw.randrange(min(n, 40) if draw.random() < 0.5 else n)


_KINDS: Sequence[Callable[[random.Random, bytes], bytes]] = (
    _noise,
    _flipped,
    _flipped,
    _flipped,
    _cut,
    _spliced,
    _spliced,
    _merged,
    _deep,
    _many,
    _packed,
    _odd,
)
