"""Pictures on their way to the server and back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from iguana.errors import InternalError, invalid
from iguana.v1 import image_pb2

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
ImageLike: TypeAlias = Pixels | PIL.Image.Image | str | Path | bytes
"""One picture: pixels [H, W] or [H, W, C], uint8 or float32 in [0, 1], exactly of the model's size; a PIL
image; the path of a PNG, JPEG or WebP file; or such a file's bytes."""
ImagesLike: TypeAlias = ImageLike | Sequence[ImageLike]
"""One picture, a list of them, or pixels [n, H, W, C]."""

_DTYPES: dict[np.dtype[Any], image_pb2.Dtype.ValueType] = {
    np.dtype(np.uint8): image_pb2.DTYPE_UINT8,
    np.dtype(np.float32): image_pb2.DTYPE_FLOAT32,
}
_WIRE_DTYPES: dict[image_pb2.Dtype.ValueType, np.dtype[Any]] = {
    image_pb2.DTYPE_UINT8: np.dtype("u1"),
    image_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
}


@dataclass(frozen=True)
class Picture:
    """A picture from the server, as delivered."""

    encoded: bytes | None = field(default=None, repr=False)
    """The PNG file, or None if pixels were delivered (`encoding="tensor"`)."""
    tensor: Pixels | None = field(default=None, repr=False, compare=False)
    """The pixels delivered, or None if a file was."""

    @cached_property
    def pixels(self) -> Pixels:
        """[H, W, C], uint8, or float32 in [0, 1] off the 8-bit grid; read-only."""
        if self.tensor is not None:
            return self.tensor
        pixels = np.asarray(self.pil())
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        pixels.flags.writeable = False
        return pixels

    @cached_property
    def png(self) -> bytes:
        """A PNG file: the delivered bytes if a file was delivered.

        Raises `InvalidArgument` for float32 pixels: a file would round them to what was never judged.
        """
        if self.encoded is not None:
            return self.encoded
        return _png(self.pil())

    def pil(self) -> PIL.Image.Image:
        """As a PIL image of mode RGB or L. Raises `InvalidArgument` for float32 pixels, as `png` does."""
        if self.encoded is not None:
            return PIL.Image.open(io.BytesIO(self.encoded), formats=["PNG"])
        if self.tensor is None:
            raise InternalError("picture: want a file or pixels, got neither")
        if self.tensor.dtype != np.uint8:
            raise invalid("picture", 'pixels on the 8-bit grid (grid="uint8")', self.tensor.dtype)
        return PIL.Image.fromarray(self.tensor[..., 0] if self.tensor.shape[-1] == 1 else self.tensor)


def to_images(field_name: str, images: ImagesLike) -> list[image_pb2.Image]:
    """`images` as messages. Raises `InvalidArgument` that names the field, or OSError."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return [_to_image(f"{field_name}[{i}]", image) for i, image in enumerate(images)]
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        return [_to_image(f"{field_name}[{i}]", image) for i, image in enumerate(images)]
    return [_to_image(field_name, images)]


def from_tensor(tensor: image_pb2.Tensor) -> Pixels:
    """The array of a message, read-only. Raises `InternalError` if its length does not fit its shape."""
    dtype = _WIRE_DTYPES.get(tensor.dtype)
    shape = tuple(tensor.shape)
    if dtype is None or len(tensor.data) != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise InternalError(
            f"tensor: want the bytes of {dtype or 'a known dtype'} {list(shape)}, got {len(tensor.data)} bytes"
        )
    pixels: Pixels = np.frombuffer(tensor.data, dtype).reshape(shape)
    return pixels


def from_image(image: image_pb2.Image) -> Picture:
    """The picture of a message."""
    if image.WhichOneof("kind") == "tensor":
        return Picture(tensor=from_tensor(image.tensor))
    return Picture(encoded=image.encoded)


def _to_image(field_name: str, image: object) -> image_pb2.Image:
    match image:
        case np.ndarray():
            return image_pb2.Image(tensor=_to_tensor(field_name, image))
        case PIL.Image.Image():
            return image_pb2.Image(encoded=_png_of(field_name, image))
        case str() | Path():
            return image_pb2.Image(encoded=Path(image).read_bytes())
        case bytes():
            return image_pb2.Image(encoded=image)
    raise invalid(field_name, "an array, a PIL image, a path or a file's bytes", type(image).__name__)


def _to_tensor(field_name: str, pixels: NDArray[Any]) -> image_pb2.Tensor:
    if pixels.dtype not in _DTYPES:
        raise invalid(f"{field_name}.dtype", "uint8, or float32 in [0, 1]", pixels.dtype)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
        raise invalid(f"{field_name}.shape", "[H, W], or [H, W, C] with 1 or 3 channels", list(pixels.shape))
    dtype = _DTYPES[pixels.dtype]
    data = np.ascontiguousarray(pixels, _WIRE_DTYPES[dtype]).tobytes()
    return image_pb2.Tensor(data=data, dtype=dtype, shape=pixels.shape)


def _png_of(field_name: str, image: PIL.Image.Image) -> bytes:
    try:
        return _png(image)
    except OSError as error:  # PNG has no CMYK, LAB, ...
        raise invalid(f"{field_name}.mode", "a mode that PNG has, such as RGB or L", image.mode) from error


def _png(image: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
