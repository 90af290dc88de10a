"""Images of the wire and pixels: float32 [C, H, W] in [0, 1]."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch

from iguana.v1 import image_pb2
from iguana_server import ops
from iguana_server.errors import InternalError, InvalidArgument
from iguana_server.rpc import picture
from iguana_server.rpc.bounds import Limits
from iguana_server.rpc.faults import Faults, listed
from iguana_server.rpc.words import DTYPE

_PNG_ROW, _FILE_BYTES = 2, 1024  # what a PNG file of noise takes beyond its pixels: a row, in all
TOLERANCE = 1e-6  # by which a float pixel may lie outside [0, 1]: a few roundings of float32


def to_pixels(
    image: image_pb2.Image,
    field: str,
    spec: picture.Input,
    limits: Limits,
    spend: Callable[[int], None] = lambda _: None,
) -> torch.Tensor:
    """Return the pixels of an image, as the model takes them: float32 [C, H, W] in [0, 1].

    Float pixels that are outside by at most 1e-6 are brought to the border. `spend` is told how many pixels of
    a file are about to be decoded. Raises InvalidArgument.
    """
    kind = image.WhichOneof("kind")
    if kind == "encoded":
        pixels = torch.from_numpy(picture.decode(image.encoded, f"{field}.encoded", spec, limits, spend))
    elif kind == "tensor":
        channels, height, width = spec.shape
        pixels = _to_array(image.tensor, f"{field}.tensor", (height, width, channels))
    else:
        raise InvalidArgument(field, "want encoded or tensor, got neither")
    return _to_float(pixels) if pixels.dtype == torch.uint8 else pixels.permute(2, 0, 1)


def from_pixels(pixels: torch.Tensor, *, png: bool) -> image_pb2.Image:
    """Return pixels [C, H, W] that lie on the 8-bit grid as a PNG file or a uint8 Tensor.

    What was made is read back; raises InternalError where it is not what was given, bit for bit.
    """
    exact = ops.float_to_pixels(pixels.unsqueeze(0).contiguous())[0]
    if not torch.equal(_to_float(exact), pixels):
        raise InternalError("image: want pixels on the 8-bit grid, got others")
    return from_bytes(exact, png=png)


def from_bytes(pixels: torch.Tensor, *, png: bool) -> image_pb2.Image:
    """Return pixels uint8 [H, W, C] as a PNG file, which is read back, or a Tensor. Raises InternalError."""
    array = pixels.numpy()
    if not png:
        return image_pb2.Image(tensor=from_array(array, image_pb2.DTYPE_UINT8))
    file = picture.encode(array)
    if not np.array_equal(picture.reread(file), array):
        raise InternalError("image: want the pixels in the PNG file, got others")
    return image_pb2.Image(encoded=file)


def largest(shape: tuple[int, int, int]) -> int:
    """Return the most bytes that an 8-bit image of this shape, C, H, W, can take."""
    channels, height, width = shape
    return height * (width * channels + _PNG_ROW) + _FILE_BYTES


def from_floats(pixels: torch.Tensor) -> image_pb2.Image:
    """Return pixels [C, H, W] as a float32 Tensor [H, W, C]."""
    return image_pb2.Image(tensor=from_array(pixels.permute(1, 2, 0).numpy(), image_pb2.DTYPE_FLOAT32))


def from_array(array: np.ndarray, dtype: image_pb2.Dtype.ValueType) -> image_pb2.Tensor:
    """Return an array as a Tensor."""
    data = np.ascontiguousarray(array, DTYPE.meanings[dtype]).tobytes()
    return image_pb2.Tensor(data=data, dtype=dtype, shape=array.shape)


def is_on_grid(pixels: torch.Tensor) -> bool:
    """Whether every pixel is some k / 255."""
    return torch.equal(_to_float(ops.float_to_pixels(pixels.unsqueeze(0).contiguous())[0]), pixels)


def _to_float(pixels: torch.Tensor) -> torch.Tensor:
    """[H, W, C] uint8 to [C, H, W] float32: k to k / 255."""
    scale, bias = _identity(pixels.shape[2])
    return ops.pixels_to_float(pixels.unsqueeze(0), scale, bias, channels_last=True)[0]


@functools.cache
def _identity(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and bias [C] that change nothing."""
    return torch.ones(channels), torch.zeros(channels)


def to_picture(
    image: image_pb2.Image,
    field: str,
    channels: int,
    limits: Limits,
    spend: Callable[[int], None] = lambda _: None,
) -> torch.Tensor:
    """Return a picture of whatever size it is: [C, H, W], uint8, or float32 in [0, 1] where a float tensor was sent.

    See to_pixels. Raises InvalidArgument.
    """
    kind = image.WhichOneof("kind")
    if kind == "encoded":
        file = picture.decode_whole(image.encoded, f"{field}.encoded", channels, limits, spend)
        return torch.from_numpy(file).permute(2, 0, 1)
    if kind != "tensor":
        raise InvalidArgument(field, "want encoded or tensor, got neither")
    shape, faults = image.tensor.shape, Faults(f"{field}.tensor.")
    if len(shape) != 3 or shape[2] != channels or not all(1 <= side <= limits.max_side for side in shape[:2]):
        faults.add("shape", f"[1..{limits.max_side}, 1..{limits.max_side}, {channels}]", listed(shape))
    elif shape[0] * shape[1] > limits.max_pixels:
        faults.add("shape", f"at most {limits.max_pixels} pixels", listed(shape))
    faults.check()
    return _to_array(image.tensor, f"{field}.tensor", (shape[0], shape[1], channels)).permute(2, 0, 1)


def _to_array(tensor: image_pb2.Tensor, field: str, want: tuple[int, int, int]) -> torch.Tensor:
    """[H, W, C] as wanted, uint8 or float32 in [0, 1]."""
    faults = Faults(f"{field}.")
    if len(tensor.shape) != len(want) or tuple(tensor.shape) != want:
        faults.add("shape", str(list(want)), listed(tensor.shape))
    dtype = DTYPE.meanings.get(tensor.dtype)
    data = tensor.data  # each look at it is a copy
    if dtype is None:
        faults.add("dtype", "DTYPE_UINT8 or DTYPE_FLOAT32", str(tensor.dtype))
    elif len(data) != (size := math.prod(want) * dtype.itemsize):
        faults.add("data", f"{size} bytes, {list(want)} x {dtype.itemsize}", str(len(data)))
    faults.check()
    array = np.frombuffer(data, dtype).reshape(want)
    if dtype == np.uint8:
        return torch.from_numpy(array.copy())
    low, high = float(array.min()), float(array.max())  # NaN goes through
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        faults.add("data", "finite pixels in [0, 1]", f"{low:g} to {high:g}")
        faults.check()
    return torch.from_numpy(np.clip(array, 0, 1).astype(np.float32, copy=False))
