"""A picture's texts are not unpacked beyond what a real picture has."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from iguana_server.errors import InvalidArgument
from iguana_server.rpc.picture import decode
from tests.rpc.service import LIMITS, small_model

SPEC = small_model().spec
SIDE = 20


def _png(texts: int, length: int) -> bytes:
    info = PngInfo()
    for i in range(texts):
        info.add_text(f"k{i}", "a" * length, zip=True)
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "red").save(file, "PNG", pnginfo=info)
    return file.getvalue()


def test_some_text_does_no_harm() -> None:
    plain = decode(_png(0, 0), "images[0]", SPEC, LIMITS)
    assert np.array_equal(decode(_png(10, 50_000), "images[0]", SPEC, LIMITS), plain)


def test_texts_of_many_megabytes_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"images\[0\]: want a sound PNG, JPEG or WebP file"):
        decode(_png(3, 500_000), "images[0]", SPEC, LIMITS)
