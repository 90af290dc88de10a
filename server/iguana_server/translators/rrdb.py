"""RRDBNet: residual-in-residual dense blocks (Wang et al. 2018, ESRGAN, arXiv:1809.00219)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

SCALE, WIDTH, GROWTH, BLOCKS = 4, 64, 32, 23
RESIDUAL = 0.2  # of what a block adds
SLOPE = 0.2


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees what went in and all that came before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv(WIDTH, GROWTH)
        self.conv2 = _conv(WIDTH + GROWTH, GROWTH)
        self.conv3 = _conv(WIDTH + 2 * GROWTH, GROWTH)
        self.conv4 = _conv(WIDTH + 3 * GROWTH, GROWTH)
        self.conv5 = _conv(WIDTH + 4 * GROWTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        seen = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen.append(leaky_relu(conv(torch.cat(seen, 1)), SLOPE, inplace=not torch.is_grad_enabled()))
        return torch.add(x, self.conv5(torch.cat(seen, 1)), alpha=RESIDUAL)


class RRDB(nn.Module):
    """Three dense blocks, and a residual around them."""

    def __init__(self) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = DenseBlock(), DenseBlock(), DenseBlock()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=RESIDUAL)


class RRDBNet(nn.Module):
    """[n, 3, H, W] in [0, 1] -> [n, 3, 4H, 4W]. The names of its tensors are those of the official checkpoints."""

    def __init__(self, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.conv_first = _conv(3, WIDTH)
        self.body = nn.Sequential(*(RRDB() for _ in range(blocks)))
        self.conv_body = _conv(WIDTH, WIDTH)
        self.conv_up1 = _conv(WIDTH, WIDTH)
        self.conv_up2 = _conv(WIDTH, WIDTH)
        self.conv_hr = _conv(WIDTH, WIDTH)
        self.conv_last = _conv(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        first = self.conv_first(x)
        y = first + self.conv_body(self.body(first))
        for conv in (self.conv_up1, self.conv_up2):
            y = leaky_relu(conv(interpolate(y, scale_factor=2, mode="nearest")), SLOPE)
        pixels: Tensor = self.conv_last(leaky_relu(self.conv_hr(y), SLOPE))
        return pixels


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)
