"""Shapes without memory: what the ops return under FakeTensor (torch.compile, opcheck)."""

from __future__ import annotations

import torch
from torch import Tensor

_IN_PLACE = ("linf_step_", "l2_step_", "momentum_", "apgd_step_", "forge_step_", "grid_", "keep_")


def _nothing(*_tensors: Tensor) -> None:
    return None


def _l2_distance(x: Tensor, x0: Tensor) -> Tensor:  # noqa: ARG001
    return x.new_empty(x.shape[0])


def _pixels_to_float(u8: Tensor, scale: Tensor, bias: Tensor, channels_last: bool) -> Tensor:  # noqa: ARG001
    n, height, width, channels = u8.shape
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(
        (n, channels, height, width), dtype=torch.float32, device=u8.device, memory_format=layout
    )


def _float_to_pixels(x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    return x.new_empty((n, height, width, channels), dtype=torch.uint8)


def _noise(seed: Tensor, sample: Tensor, restart: Tensor, step: Tensor, numel: int) -> Tensor:  # noqa: ARG001
    return seed.new_empty((seed.shape[0], numel), dtype=torch.float32)


for _name in _IN_PLACE:
    torch.library.register_fake(f"iguana::{_name}", _nothing)
torch.library.register_fake("iguana::l2_distance", _l2_distance)
torch.library.register_fake("iguana::pixels_to_float", _pixels_to_float)
torch.library.register_fake("iguana::float_to_pixels", _float_to_pixels)
torch.library.register_fake("iguana::philox_uniform", _noise)
torch.library.register_fake("iguana::philox_normal", _noise)
