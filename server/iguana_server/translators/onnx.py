"""The initialisers of an ONNX file, read from its protobuf: weights and their names, nothing of the graph.

For files of a known sha256, so nothing of the format is read that those do not use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from iguana_server.errors import ModelRefused

# Numbers of fields (onnx.proto): the graph in a model, the tensors in a graph, and a tensor's own.
GRAPH, INITIALIZER = 7, 5
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9
FLOAT = 1  # a data type
VARINT, BYTES = 0, 2  # wire types


def read(content: bytes) -> dict[str, Tensor]:
    """Return the float32 initialisers of a model by name.

    Raises ModelRefused where the bytes are not such a file's.
    """
    found = {}
    for graph in _all(content, GRAPH):
        for tensor in _all(graph, INITIALIZER):
            (name,), (raw,) = _all(tensor, NAME), _all(tensor, RAW_DATA)
            shape = [value for number, value in _fields(tensor) if number == DIMS and isinstance(value, int)]
            if (DATA_TYPE, FLOAT) not in _fields(tensor) or len(raw) != 4 * math.prod(shape):
                raise ModelRefused(
                    f"onnx: {name.decode()}: want float32 {shape}, got others or {len(raw)} bytes"
                )
            found[name.decode()] = torch.frombuffer(bytearray(raw), dtype=torch.float32).view(shape)
    return found


def _all(message: bytes, number: int) -> list[bytes]:
    return [value for found, value in _fields(message) if found == number and isinstance(value, bytes)]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Walk a protobuf message: the number and the value of each field that is a varint or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)  # the number itself, or how many bytes follow
        if key & 7 == BYTES:
            if at + value > len(message):
                raise ModelRefused(f"onnx: want {value} bytes, got {len(message) - at}")
            yield key >> 3, message[at : at + value]
            at += value
        elif key & 7 == VARINT:
            yield key >> 3, value
        else:
            raise ModelRefused(f"onnx: want a varint or bytes, got wire type {key & 7}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ModelRefused("onnx: want the end of a number, got the end of the file")
