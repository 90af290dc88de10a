"""Picture files: what is taken, how it is fitted, and that nothing else gets through."""

from __future__ import annotations

import io
import random
import struct
import time
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from iguana_server.errors import InvalidArgument
from iguana_server.rpc import picture
from iguana_server.rpc.bounds import Limits
from tests.rpc.service import CLASSES, LIMITS, SHAPE, file, small_model

# A corrupt EXIF or a palette's oddity is a warning of Pillow's and no fault: it goes to the log.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

SPEC = small_model().spec
GREY = small_model(shape=(1, 12, 14)).spec
WIDE = replace(LIMITS, max_image_bytes=8 << 20, max_side=4096, max_pixels=1 << 24)


def decode(data: bytes, spec: Any = SPEC, limits: Limits = LIMITS) -> NDArray[np.uint8]:
    return picture.decode(data, "images[3].encoded", spec, limits)


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([128 + 100 * np.sin(x / 9 + c) * np.cos(y / 7) for c in range(3)], -1)
    noise = np.random.default_rng(seed).normal(0, 6, waves.shape)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 60), (61, 33), (12, 14), (7, 9), (200, 17)])
def test_short_side_is_resized_and_the_centre_is_cut(height: int, width: int) -> None:
    image = Image.fromarray(photo(height, width))
    short = min(height, width)
    size = (SPEC.resize * width // short, SPEC.resize * height // short)
    left, top = (size[0] - 14) // 2, (size[1] - 12) // 2
    whole = image.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + 14, top + 12))
    got = decode(file(np.asarray(image)))
    assert got.shape == (12, 14, 3)
    assert np.abs(got.astype(int) - np.asarray(whole).astype(int)).max() <= 1  # it rounds once, not twice


def test_picture_of_the_right_short_side_is_only_cut() -> None:
    pixels = photo(16, 30)
    assert np.array_equal(decode(file(pixels)), pixels[2:14, 8:22])


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_files_of_one_picture_give_the_same_pixels(kind: str) -> None:
    pixels = photo(16, 16)
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    got = decode(file(pixels, kind, **options))
    assert np.array_equal(got, pixels[2:14, 1:15])


def test_jpeg_is_taken() -> None:
    pixels = photo(16, 16)
    got = decode(file(pixels, "JPEG", quality=95, subsampling=0))
    assert np.abs(got.astype(int) - pixels[2:14, 1:15]).mean() < 4


def test_transparent_pixels_lie_on_white() -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, :8, 3] = 255
    got = decode(file(pixels))
    assert (got[:, :7] == 0).all()
    assert (got[:, 7:] == 255).all()
    assert (decode(file(np.zeros((16, 16, 2), np.uint8)), GREY) == 255).all()


def test_picture_is_turned_upright() -> None:
    pixels = photo(16, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    turned = decode(file(pixels, exif=exif))
    assert np.array_equal(turned, decode(file(np.ascontiguousarray(np.rot90(pixels, -1)))))
    assert not np.array_equal(turned, decode(file(pixels)))


def test_sixteen_bits_keep_the_high_ones() -> None:
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    assert np.array_equal(decode(file(deep), GREY)[:, :, 0], (deep >> 8)[2:14, 1:15])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("spec", [SPEC, GREY], ids=["rgb", "grey"])
def test_every_mode_of_a_file_is_taken(mode: str, spec: Any) -> None:
    source = Image.fromarray(photo(20, 20))
    if mode == "I;16":
        source = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
    elif mode == "PA":
        source = source.convert("P")
        source.info["transparency"] = bytes(range(256))
    else:
        source = source.convert(mode)
    target = io.BytesIO()
    source.save(target, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG", **cast(dict[str, Any], source.info))
    assert decode(target.getvalue(), spec).shape == (12, 14, spec.shape[0])


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return picture.PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_bomb(side: int) -> bytes:
    data = bytearray(file(photo(16, 16), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(data)


def webp_bomb() -> bytes:
    """Small frames on a canvas of 13000 x 13000, for which Pillow allocates 1.3 GB when it opens the file."""
    target = io.BytesIO()
    frames = [Image.fromarray(photo(16, 16, seed)) for seed in range(2)]
    frames[0].save(target, "WEBP", save_all=True, append_images=frames[1:])
    data = bytearray(target.getvalue())
    assert data[12:16] == b"VP8X"
    data[24:27] = data[27:30] = (13_000 - 1).to_bytes(3, "little")
    return bytes(data)


BOMBS = {
    "png": png_bomb(8000, 8000),
    "png-huge": picture.PNG_MAGIC
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)),
    "png-negative": picture.PNG_MAGIC + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**32 - 1, 1, 8, 2, 0, 0, 0)),
    "png-flat": picture.PNG_MAGIC + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0)),
    "jpeg": jpeg_bomb(65500),
    "jpeg-12k": jpeg_bomb(12_000),
    "webp": webp_bomb(),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_before_it_is_decoded(name: str) -> None:
    times = []
    tracemalloc.start()
    for _ in range(3):
        began = time.thread_time()
        with pytest.raises(InvalidArgument, match=r"images\[3\].encoded: want ") as refused:
            decode(BOMBS[name], limits=WIDE)
        times.append(time.thread_time() - began)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert min(times) < 0.02
    assert peak < 10 << 20
    if name in ("png", "jpeg-12k", "webp"):
        assert "sides of 1 to 4096 pixels" in str(refused.value) or "many times more" in str(refused.value)


@pytest.mark.parametrize("name", ["png", "jpeg-12k", "webp"])
def test_bomb_takes_no_memory(name: str) -> None:
    """Of the process, not of Python alone: Pillow's own allocations too."""
    import resource  # noqa: PLC0415

    with pytest.raises(InvalidArgument):
        decode(BOMBS[name], limits=WIDE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidArgument):
        decode(BOMBS[name], limits=WIDE)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10 << 10  # KiB


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (webp_bomb(), "13000 x 13000"),
        (file(photo(16, 301), "WEBP"), "301 x 16"),
        (file(photo(301, 16), "WEBP", lossless=True), "16 x 301"),
    ],
    ids=["extended", "lossy", "lossless"],
)
def test_large_webp_is_never_opened(data: bytes, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow allocates the canvas of a WebP file before it tells its size."""
    monkeypatch.delattr(Image, "open")
    with pytest.raises(InvalidArgument, match=f"want sides of 1 to 300 pixels, got {size}"):
        decode(data)


def test_long_thin_picture_costs_no_more_than_its_file() -> None:
    """1 x 4096 with the short side brought to 16 would be 65536 wide, were it not cut first."""
    tracemalloc.start()
    assert decode(file(photo(1, 4096)), limits=WIDE).shape == (12, 14, 3)
    assert decode(file(photo(4096, 1)), limits=WIDE).shape == (12, 14, 3)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animation_is_refused(kind: str) -> None:
    frames = [Image.fromarray(photo(16, 16, seed)) for seed in range(3)]
    target = io.BytesIO()
    frames[0].save(target, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(InvalidArgument, match="want one frame, got 3 frames"):
        decode(target.getvalue())


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "JPEG2000"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(InvalidArgument, match="want a PNG, JPEG or WebP file, got bytes of another format"):
        decode(file(photo(16, 16), kind))


def test_limits_are_named_with_what_came() -> None:
    for data, want in (
        (b"", "want 1 to 100000 bytes, got 0"),
        (bytes(100_001), "want 1 to 100000 bytes, got 100001"),
        (file(photo(1, 301)), "want sides of 1 to 300 pixels, got 301 x 1"),
        (file(photo(201, 200)), "want at most 40000 pixels, got 200 x 201"),
    ):
        with pytest.raises(InvalidArgument, match=want) as refused:
            decode(data)
        assert refused.value.violations[0][0] == "images[3].encoded"


def test_file_for_a_model_of_odd_channels_is_refused() -> None:
    spec = small_model(shape=(2, 12, 14), classes=CLASSES).spec
    with pytest.raises(InvalidArgument, match="want a tensor, for a model of 2 channels"):
        decode(file(photo(16, 16)), spec)


def test_png_keeps_every_pixel() -> None:
    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 256, (12, 14, channels), dtype=np.uint8)
        assert np.array_equal(picture.reread(picture.encode(pixels)), pixels)


def outcome(data: bytes) -> None:
    """Decode: the pixels of a picture, or a refusal; nothing else."""
    try:
        pixels = decode(data)
    except InvalidArgument as refused:
        ((field, description),) = refused.violations
        assert field == "images[3].encoded"
        assert description.startswith("want ")
        assert " 0x" not in description  # no address of ours
    else:
        assert pixels.shape == (SHAPE[1], SHAPE[2], SHAPE[0])


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(
        [b"", picture.PNG_MAGIC, picture.JPEG_MAGIC, b"RIFF\x20\0\0\0WEBPVP8X", b"RIFF\x20\0\0\0WEBPVP8L"]
    ),
)
def test_any_bytes_are_a_picture_or_a_refusal(data: bytes, start: bytes) -> None:
    outcome(start + data)


def apng() -> bytes:
    frames = [Image.fromarray(photo(9, 9, seed)) for seed in range(2)]
    target = io.BytesIO()
    frames[0].save(target, "PNG", save_all=True, append_images=frames[1:])
    return target.getvalue()


def seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 3
    palette = io.BytesIO()
    Image.fromarray(photo(9, 9)).convert("P").save(palette, "PNG", transparency=bytes(range(64)))
    return [
        file(photo(9, 9)),
        file(photo(9, 9), exif=exif),
        file(photo(9, 9), "JPEG", exif=exif),
        file(photo(9, 9), "JPEG", progressive=True),
        file(photo(9, 9), "WEBP"),
        file(photo(9, 9), "WEBP", lossless=True, exif=exif),
        palette.getvalue(),
        apng(),
    ]


SEEDS = seeds()


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(range(len(SEEDS))), st.integers(0, 2**32), st.integers(1, 6), st.booleans())
def test_mutated_files_are_pictures_or_refusals(which: int, seed: int, changes: int, mend: bool) -> None:
    generator = random.Random(seed)
    data = bytearray(SEEDS[which])
    for _ in range(changes):
        at = generator.randrange(len(data))
        match generator.randrange(4):
            case 0:
                data[at] = generator.randrange(256)
            case 1:
                del data[at : at + generator.randrange(8)]
            case 2:
                data[at:at] = generator.randbytes(generator.randrange(8))
            case _:
                del data[max(at, 16) :]
    if mend and data.startswith(picture.PNG_MAGIC):
        data = bytearray(mended(bytes(data)))
    outcome(bytes(data))


def mended(data: bytes) -> bytes:
    """The same PNG with the checksums right, so that a mutation gets past them."""
    out, at = [data[:8]], 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        if at + 12 + size > len(data):
            break
        out.append(chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return b"".join(out) + data[at:]


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    """Each scan of a progressive file costs a pass over all pixels, and ten bytes."""
    target = io.BytesIO()
    Image.new("L", (64, 64), 128).save(target, "JPEG", progressive=True)
    data = target.getvalue()
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    assert decode(data).shape
    with pytest.raises(InvalidArgument, match="want at most 100 scans, got"):
        decode(data[:start] + scan * 200 + data[-2:])


def test_of_several_pictures_of_one_shot_the_first_is_taken() -> None:
    """A phone's MPO file is a photo with an auxiliary picture."""
    first, second = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
    target = io.BytesIO()
    first.save(target, "MPO", save_all=True, append_images=[second])
    pixels = decode(target.getvalue())
    assert pixels[..., 0].mean() > 200
    assert pixels[..., 2].mean() < 50


def test_what_is_spent_is_told_before_it_is_decoded() -> None:
    target = io.BytesIO()
    Image.new("L", (30, 20)).save(target, "PNG")
    told: list[int] = []
    picture.decode(target.getvalue(), "x", SPEC, LIMITS, told.append)
    assert told == [600]
