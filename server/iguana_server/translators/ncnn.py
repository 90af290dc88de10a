"""Weights in ncnn's binary format: no names, no shapes, one layer's numbers after another's.

A .bin says nothing of the network it is of; the .param text beside it does. Here the network itself says it: its
layers must stand in the order in which they run.
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor, nn

from iguana_server.errors import ModelRefused

HALF = 0x01306B47  # what stands before weights in float16, which are padded to 4 bytes


def read(content: bytes, net: nn.Module) -> dict[str, Tensor]:
    """Return the float32 tensors of the convolutions (float16 in the file) and PReLUs of `net`, by their names there.

    Raises ModelRefused where the bytes are not those of such layers.
    """
    tensors: dict[str, Tensor] = {}
    at = 0

    def take(shape: torch.Size, dtype: torch.dtype) -> Tensor:
        nonlocal at
        size = shape.numel() * dtype.itemsize
        if len(content) - at < size:
            raise ModelRefused(f"ncnn weights: want {size} bytes at {at}, got {len(content) - at}")
        found = torch.frombuffer(bytearray(content[at : at + size]), dtype=dtype).view(shape).float()
        at += (size + 3) // 4 * 4
        return found

    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            flag = struct.unpack_from("<I", content.ljust(at + 4, b"\0"), at)[0]
            if flag != HALF:
                raise ModelRefused(f"ncnn weights: want {HALF:#010x} at {at}, got {flag:#010x}")
            at += 4
            tensors[f"{name}.weight"] = take(layer.weight.shape, torch.float16)
            assert layer.bias is not None  # noqa: S101 - the nets here have one everywhere
            tensors[f"{name}.bias"] = take(layer.bias.shape, torch.float32)
        elif isinstance(layer, nn.PReLU):
            tensors[f"{name}.weight"] = take(layer.weight.shape, torch.float32)
    if at != len(content):
        raise ModelRefused(f"ncnn weights: want {at} bytes, got {len(content)}")
    return tensors
