"""Images of the wire: every fault of a tensor is named, and what is delivered is what was judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iguana.v1 import image_pb2
from iguana_server.errors import InternalError, InvalidArgument
from iguana_server.rpc.image import from_floats, from_pixels, is_on_grid, to_pixels
from tests.rpc.service import LIMITS, SHAPE, file, opened, pixels, small_model, tensor

SPEC = small_model().spec
SIZE = 12 * 14 * 3


def read(image: image_pb2.Image) -> torch.Tensor:
    return to_pixels(image, "images[3]", SPEC, LIMITS)


def floats() -> Any:
    return np.random.default_rng(1).random((12, 14, 3), dtype=np.float32)


def test_bytes_become_k_over_255() -> None:
    (array,) = pixels(1)
    want = torch.from_numpy(array.astype(np.float32) / np.float32(255)).permute(2, 0, 1)
    assert torch.equal(read(tensor(array)), want)


def test_file_and_tensor_of_the_same_pixels_are_the_same() -> None:
    (array,) = pixels(1, shape=(3, 16, 16))
    cut = np.ascontiguousarray(array[2:14, 1:15])
    assert torch.equal(read(image_pb2.Image(encoded=file(array))), read(tensor(cut)))


def test_floats_come_in_as_they_are() -> None:
    array = floats()
    assert torch.equal(read(tensor(array)), torch.from_numpy(array).permute(2, 0, 1))


def test_floats_a_rounding_outside_are_brought_to_the_border() -> None:
    array = floats()
    array[0, 0, :2] = 1 + 5e-7, -5e-7
    got = read(tensor(array))[:, 0, 0]
    assert got[0] == 1
    assert got[1] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, 1.001, -0.001])
def test_floats_that_are_no_pixels_are_refused(value: float) -> None:
    array = floats()
    array[5, 6, 1] = value
    with pytest.raises(
        InvalidArgument, match=r"images\[3\].tensor.data: want finite pixels in \[0, 1\], got "
    ):
        read(tensor(array))


U8, F32 = image_pb2.DTYPE_UINT8, image_pb2.DTYPE_FLOAT32
WRONG: dict[str, tuple[bytes, int, list[int], str]] = {
    "size": (bytes(9), U8, [1, 3, 3], r"images[3].tensor.shape: want [12, 14, 3], got [1, 3, 3]"),
    "order": (bytes(SIZE), U8, [3, 12, 14], r"images[3].tensor.shape: want [12, 14, 3], got [3, 12, 14]"),
    "rank": (
        bytes(SIZE),
        U8,
        [1, 12, 14, 3],
        r"images[3].tensor.shape: want [12, 14, 3], got [1, 12, 14, 3]",
    ),
    "no shape": (bytes(SIZE), U8, [], r"images[3].tensor.shape: want [12, 14, 3], got []"),
    "huge": (b"", U8, [2**32 - 1] * 3, r"images[3].tensor.shape: want [12, 14, 3], got [4294967295, 429"),
    "long": (b"", U8, [1] * 5000, r"images[3].tensor.shape: want [12, 14, 3], got 5000 values"),
    "short": (
        bytes(SIZE - 1),
        U8,
        [12, 14, 3],
        r"images[3].tensor.data: want 504 bytes, [12, 14, 3] x 1, got 503",
    ),
    "empty": (b"", F32, [12, 14, 3], r"images[3].tensor.data: want 2016 bytes, [12, 14, 3] x 4, got 0"),
    "no dtype": (
        bytes(SIZE),
        0,
        [12, 14, 3],
        r"images[3].tensor.dtype: want DTYPE_UINT8 or DTYPE_FLOAT32, got 0",
    ),
    "dtype": (
        bytes(SIZE),
        7,
        [12, 14, 3],
        r"images[3].tensor.dtype: want DTYPE_UINT8 or DTYPE_FLOAT32, got 7",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tensor_is_refused_by_name(name: str) -> None:
    data, dtype, shape, text = WRONG[name]
    image = image_pb2.Image(tensor=image_pb2.Tensor(data=data, dtype=dtype, shape=shape))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument) as refused:
        read(image)
    assert text in str(refused.value)


def test_all_faults_of_a_tensor_are_named_at_once() -> None:
    image = image_pb2.Image(tensor=image_pb2.Tensor(data=b"1", dtype=U8, shape=[1]))
    with pytest.raises(InvalidArgument) as refused:
        read(image)
    assert [field for field, _ in refused.value.violations] == [
        "images[3].tensor.shape",
        "images[3].tensor.data",
    ]


def test_image_without_a_kind_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"images\[3\]: want encoded or tensor, got neither"):
        read(image_pb2.Image())


@given(
    st.binary(max_size=60), st.integers(-(2**31), 2**31 - 1), st.lists(st.integers(0, 2**32 - 1), max_size=5)
)
def test_any_tensor_is_pixels_or_a_refusal(data: bytes, dtype: int, shape: list[int]) -> None:
    image = image_pb2.Image(tensor=image_pb2.Tensor(data=data, dtype=dtype, shape=shape))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"images\[3\].tensor."):
        read(image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("png", [True, False])
def test_delivered_pixels_are_those_that_were_judged(channels: int, png: bool) -> None:
    (array,) = pixels(1, shape=(channels, 12, 14))
    judged = torch.from_numpy(array.astype(np.float32) / np.float32(255)).permute(2, 0, 1)
    image = from_pixels(judged, png=png)
    assert image.WhichOneof("kind") == ("encoded" if png else "tensor")
    assert np.array_equal(opened(image).reshape(12, 14, channels), array)


def test_pixels_off_the_grid_are_never_delivered_as_bytes() -> None:
    (array,) = pixels(1)
    judged = torch.from_numpy(array.astype(np.float32) / np.float32(255)).permute(2, 0, 1).clone()
    assert is_on_grid(judged)
    judged[0, 0, 0] = torch.nextafter(judged[0, 0, 0], torch.tensor(0.5))
    assert not is_on_grid(judged)
    for png in (True, False):
        with pytest.raises(InternalError, match="want pixels on the 8-bit grid"):
            from_pixels(judged, png=png)


def test_png_that_does_not_hold_the_pixels_is_not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    (array,) = pixels(1)
    monkeypatch.setattr("iguana_server.rpc.picture.encode", lambda given: file(given ^ 1))
    with pytest.raises(InternalError, match="want the pixels in the PNG file"):
        from_pixels(read(tensor(array)), png=True)


def test_floats_go_out_as_they_are() -> None:
    array = floats()
    image = from_floats(torch.from_numpy(array).permute(2, 0, 1))
    assert image.tensor.dtype == F32
    assert list(image.tensor.shape) == [*SHAPE[1:], SHAPE[0]]
    assert np.array_equal(opened(image), array)
