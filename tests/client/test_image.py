from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from iguana import InternalError, InvalidArgument, Picture
from iguana.image import from_image, from_tensor, to_images
from iguana.v1 import image_pb2

PIXELS = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3])),
    elements=st.integers(0, 255),
)


@given(PIXELS)
def test_pixels_come_back_as_they_went(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    (message,) = to_images("images", pixels)
    np.testing.assert_array_equal(from_image(message).pixels, pixels)
    floats = pixels.astype(np.float32) / np.float32(255)
    (message,) = to_images("images", floats)
    assert message.tensor.dtype == image_pb2.DTYPE_FLOAT32
    np.testing.assert_array_equal(from_image(message).pixels, floats)


@given(PIXELS)
def test_a_png_holds_the_delivered_pixels(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    picture = Picture(tensor=pixels)
    again = Picture(encoded=picture.png)
    assert again.png is again.encoded
    np.testing.assert_array_equal(again.pixels, pixels)


def test_big_endian_pixels_travel_little_endian() -> None:
    floats = np.array([[0.25, 0.5]], ">f4")
    (message,) = to_images("images", floats.astype(np.float32))
    assert message.tensor.data == np.array([[0.25, 0.5]], "<f4").tobytes()
    assert list(message.tensor.shape) == [1, 2, 1]


def test_a_slice_travels_as_it_is_seen() -> None:
    pixels = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    (message,) = to_images("images", pixels[::2, ::-1])
    np.testing.assert_array_equal(from_image(message).pixels, pixels[::2, ::-1])


def test_a_batch_is_one_image_a_row() -> None:
    batch = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    messages = to_images("images", batch)
    assert [from_image(m).pixels.tolist() for m in messages] == batch.tolist()


def test_files_travel_as_they_are(cat_file: Path, cat: bytes) -> None:
    assert [m.encoded for m in to_images("images", [cat_file, str(cat_file), cat])] == [cat] * 3
    assert [m.encoded for m in to_images("images", str(cat_file))] == [cat]


def test_a_pil_image_travels_as_png(cat: bytes) -> None:
    with Image.open(io.BytesIO(cat)) as image:
        (message,) = to_images("images", image)
        np.testing.assert_array_equal(from_image(message).pixels, np.asarray(image))


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((2, 2)), r"images\[1\].dtype: want uint8, or float32 in \[0, 1\], got float64"),
        (np.zeros((2, 2, 2), np.uint8), r"images\[1\].shape: want .*, got \[2, 2, 2\]"),
        (np.zeros(2, np.uint8), r"images\[1\].shape: want .*, got \[2\]"),
        (3, r"images\[1\]: want an array, .*, got int"),
        (Image.new("CMYK", (2, 2)), r"images\[1\].mode: want a mode that PNG has, .*, got CMYK"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(image: object, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        to_images("images", [np.zeros((2, 2), np.uint8), image])  # type: ignore[list-item]


def test_a_missing_file_is_the_operating_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        to_images("images", tmp_path / "none.png")


def test_float_pixels_make_no_file() -> None:
    picture = Picture(tensor=np.zeros((2, 2, 3), np.float32))
    with pytest.raises(InvalidArgument, match="8-bit grid"):
        _ = picture.png


def test_a_tensor_of_the_wrong_length_is_the_servers_fault() -> None:
    with pytest.raises(InternalError, match=r"uint8 \[2, 2\], got 3 bytes"):
        from_tensor(image_pb2.Tensor(data=b"abc", dtype=image_pb2.DTYPE_UINT8, shape=[2, 2]))
