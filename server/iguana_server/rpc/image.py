"""Images of the wire and pixels: float32 [C, H, W] in [0, 1]."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from iguana.v1 import image_pb2
from iguana_server import ops
from iguana_server.errors import InternalError, InvalidArgument
from iguana_server.models.base import Spec
from iguana_server.rpc import picture
from iguana_server.rpc.bounds import Limits
from iguana_server.rpc.faults import Faults, listed
from iguana_server.rpc.words import DTYPE

TOLERANCE = 1e-6  # by which a float pixel may lie outside [0, 1]: a few roundings of float32


def to_pixels(
    image: image_pb2.Image,
    field: str,
    spec: Spec,
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
        pixels = _to_array(image.tensor, f"{field}.tensor", spec)
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
    array = exact.numpy()
    if not png:
        return image_pb2.Image(tensor=from_array(array, image_pb2.DTYPE_UINT8))
    file = picture.encode(array)
    if not np.array_equal(picture.reread(file), array):
        raise InternalError("image: want the pixels in the PNG file, got others")
    return image_pb2.Image(encoded=file)


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


def _to_array(tensor: image_pb2.Tensor, field: str, spec: Spec) -> torch.Tensor:
    """[H, W, C], uint8 or float32 in [0, 1]."""
    channels, height, width = spec.shape
    want = (height, width, channels)
    faults = Faults(f"{field}.")
    if len(tensor.shape) != len(want) or tuple(tensor.shape) != want:
        faults.add("shape", str(list(want)), listed(tensor.shape))
    dtype = DTYPE.meanings.get(tensor.dtype)
    data = tensor.data  # each look at it is a copy
    if dtype is None:
        faults.add("dtype", "DTYPE_UINT8 or DTYPE_FLOAT32", str(tensor.dtype))
    elif len(data) != (size := height * width * channels * dtype.itemsize):
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
