"""The reader of ncnn's weights against bytes written by hand; test_realesrgan.py has the library itself."""

from __future__ import annotations

import struct

import pytest
import torch
from torch import Tensor, nn

from iguana_server.errors import ModelRefused
from iguana_server.translators import ncnn


def net() -> nn.Sequential:
    """Three weights in float16 are 6 bytes: two of padding follow."""
    return nn.Sequential(nn.Conv2d(1, 3, 1), nn.PReLU(3), nn.Conv2d(3, 1, 3, padding=1))


def written(tensors: dict[str, Tensor]) -> bytes:
    content = b""
    for name in ("0", "2"):
        half = tensors[f"{name}.weight"].half().numpy().tobytes()
        content += struct.pack("<I", 0x01306B47) + half + b"\0" * (-len(half) % 4)
        content += tensors[f"{name}.bias"].numpy().tobytes()
        if name == "0":
            content += tensors["1.weight"].numpy().tobytes()
    return content


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(value.shape, generator=rng).half().float()
        for key, value in net().state_dict().items()
    }


def test_tensors_come_back(tensors: dict[str, Tensor]) -> None:
    got = ncnn.read(written(tensors), net())
    assert got.keys() == tensors.keys()
    assert all(torch.equal(got[key], tensors[key]) for key in got)
    assert {tensor.dtype for tensor in got.values()} == {torch.float32}


def test_another_flag_is_refused(tensors: dict[str, Tensor]) -> None:
    content = struct.pack("<I", 0x0002C056) + written(tensors)[4:]
    with pytest.raises(ModelRefused, match=r"ncnn weights: want 0x01306b47 at 0, got 0x0002c056"):
        ncnn.read(content, net())


def test_a_shorter_or_longer_file_is_refused(tensors: dict[str, Tensor]) -> None:
    content = written(tensors)
    with pytest.raises(ModelRefused, match=rf"want {len(content)} bytes, got {len(content) + 4}"):
        ncnn.read(content + b"\0" * 4, net())
    with pytest.raises(ModelRefused, match=r"want 4 bytes at \d+, got 0"):
        ncnn.read(content[:-4], net())
    with pytest.raises(ModelRefused, match=r"want 0x01306b47 at 0, got 0x00000000"):
        ncnn.read(b"", net())


def test_another_network_is_refused(tensors: dict[str, Tensor]) -> None:
    wider = nn.Sequential(nn.Conv2d(1, 4, 1), nn.PReLU(4), nn.Conv2d(4, 1, 3, padding=1))
    with pytest.raises(ModelRefused, match=r"ncnn weights: want"):
        ncnn.read(written(tensors), wider)
