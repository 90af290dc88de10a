"""The U-Net generator of pix2pix: Isola et al. 2017 (arXiv:1611.07004), after Ronneberger et al. 2015.

Tensors have the names that checkpoints of pytorch-CycleGAN-and-pix2pix give them, so those load unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iguana_server.translators import norms
from iguana_server.translators.norms import Norm

LEAST = 5  # levels: four widths, and the innermost


class Level(nn.Module):
    """Halve, do what is inside, double: [n, C, H, W] -> [n, C + outer, H, W], what came in beside what comes back.

    What came in is seen through the LeakyReLU, by the convolution and by the level outside alike: in the
    published networks that activation works in place. The outermost level (`inputs` given) has none, and returns
    what comes back alone, through a tanh.
    """

    def __init__(
        self,
        outer: int,
        inner: int,
        norm: Norm,
        inside: Level | None = None,
        *,
        inputs: int | None = None,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = inputs is not None
        bias = norms.bias(norm)
        down = nn.Conv2d(outer if inputs is None else inputs, inner, 4, stride=2, padding=1, bias=bias)
        up = nn.ConvTranspose2d(
            inner if inside is None else 2 * inner,
            outer,
            4,
            stride=2,
            padding=1,
            bias=bias or self.outermost,
        )
        layers: list[nn.Module] = [] if self.outermost else [nn.LeakyReLU(0.2)]
        layers.append(down)
        if inside is not None:
            layers += [inside] if self.outermost else [norms.layer(norm, inner), inside]
        layers += [nn.ReLU(inplace=True), up, nn.Tanh() if self.outermost else norms.layer(norm, outer)]
        if dropout:
            layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        if self.outermost:
            y: Tensor = self.model(x)
            return y
        x = self.model[0](x)
        y = self.model[1:](x)
        return torch.cat([x, y], 1)


class UnetGenerator(nn.Module):
    """Pixels [n, inputs, H, W] in [-1, 1] -> [n, outputs, H, W] in [-1, 1]; 2**downs divides H and W.

    `downs` counts the halvings: 8 for pictures of 256 x 256, 7 for 128 x 128, 5 at the least. `width` is the
    channels of the first convolution (ngf); they double three times. Dropout is in the levels of the full width.
    """

    def __init__(
        self, inputs: int, outputs: int, width: int, downs: int, norm: Norm, *, dropout: bool = False
    ) -> None:
        super().__init__()
        level = Level(8 * width, 8 * width, norm)
        for _ in range(downs - LEAST):
            level = Level(8 * width, 8 * width, norm, level, dropout=dropout)
        for factor in (4, 2, 1):
            level = Level(factor * width, 2 * factor * width, norm, level)
        self.model = Level(outputs, width, norm, level, inputs=inputs)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        y: Tensor = self.model(x)
        return y
