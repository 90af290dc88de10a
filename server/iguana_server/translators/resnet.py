"""The ResNet generator of CycleGAN: Johnson et al. 2016 (arXiv:1603.08155), as in Zhu et al. 2017 (arXiv:1703.10593).

Tensors have the names that checkpoints of pytorch-CycleGAN-and-pix2pix give them, so those load unchanged.
"""

from __future__ import annotations

from torch import Tensor, nn

from iguana_server.translators import norms
from iguana_server.translators.norms import Norm

DOWNS = 2  # halvings before the blocks, doublings after them
MULTIPLE = 2**DOWNS  # of which the sides of a picture must be


class ResnetBlock(nn.Module):
    """x plus two 3x3 convolutions of it, reflected at the edges: [n, C, H, W] -> [n, C, H, W]."""

    def __init__(self, channels: int, norm: Norm, *, dropout: bool) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=norms.bias(norm)),
            norms.layer(norm, channels),
            nn.ReLU(inplace=True),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=norms.bias(norm)),
            norms.layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        y: Tensor = self.conv_block(x)
        return x + y


class ResnetGenerator(nn.Module):
    """Pixels [n, inputs, H, W] in [-1, 1] -> [n, outputs, H, W] in [-1, 1]; 4 divides H and W.

    `width` is the channels of the first convolution (ngf), `blocks` those at a quarter of the size: 9 for
    pictures of 256 x 256 and more, 6 for smaller ones.
    """

    def __init__(
        self, inputs: int, outputs: int, width: int, blocks: int, norm: Norm, *, dropout: bool = False
    ) -> None:
        super().__init__()
        bias = norms.bias(norm)
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(inputs, width, 7, bias=bias),
            norms.layer(norm, width),
            nn.ReLU(inplace=True),
        ]
        for down in range(DOWNS):
            c = width * 2**down
            layers += [
                nn.Conv2d(c, 2 * c, 3, stride=2, padding=1, bias=bias),
                norms.layer(norm, 2 * c),
                nn.ReLU(inplace=True),
            ]
        layers += [ResnetBlock(width * MULTIPLE, norm, dropout=dropout) for _ in range(blocks)]
        for up in reversed(range(DOWNS)):
            c = width * 2**up
            layers += [
                nn.ConvTranspose2d(2 * c, c, 3, stride=2, padding=1, output_padding=1, bias=bias),
                norms.layer(norm, c),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, outputs, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        y: Tensor = self.model(x)
        return y
