"""The discriminators of pix2pix and CycleGAN, which judge patches: Isola et al. 2017 (arXiv:1611.07004).

Tensors have the names that checkpoints of pytorch-CycleGAN-and-pix2pix give them, so those load unchanged.
"""

from __future__ import annotations

from torch import Tensor, nn

from iguana_server.translators import norms
from iguana_server.translators.norms import Norm

WIDEST = 8  # times the width of the first convolution


class NLayerDiscriminator(nn.Module):
    """Pixels [n, inputs, H, W] in [-1, 1] -> one logit a patch, [n, 1, H', W']: 256 x 256 -> 30 x 30 for 3 layers.

    `width` is the channels of the first convolution (ndf). pix2pix' judges what went in and what came out, joined.
    """

    def __init__(self, inputs: int, width: int, layers: int, norm: Norm) -> None:
        super().__init__()
        stack: list[nn.Module] = [nn.Conv2d(inputs, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for layer in range(1, layers + 1):
            before, after = (width * min(2**n, WIDEST) for n in (layer - 1, layer))
            stride = 2 if layer < layers else 1
            stack += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=norms.bias(norm)),
                norms.layer(norm, after),
                nn.LeakyReLU(0.2),
            ]
        stack.append(nn.Conv2d(width * min(2**layers, WIDEST), 1, 4, padding=1))
        self.model = nn.Sequential(*stack)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        y: Tensor = self.model(x)
        return y


class PixelDiscriminator(nn.Module):
    """Pixels [n, inputs, H, W] in [-1, 1] -> one logit a pixel, [n, 1, H, W]: a PatchGAN of patches of one."""

    def __init__(self, inputs: int, width: int, norm: Norm) -> None:
        super().__init__()
        bias = norms.bias(norm)
        self.net = nn.Sequential(
            nn.Conv2d(inputs, width, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 1, bias=bias),
            norms.layer(norm, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        y: Tensor = self.net(x)
        return y


def receptive_field(layers: int) -> int:
    """Return the side, in pixels, of the patch that one logit of NLayerDiscriminator sees.

    By going back through its convolutions, each 4 x 4: r -> (r - 1) stride + 4.
    """
    side = 1
    for stride in [1, 1] + [2] * layers:
        side = (side - 1) * stride + 4
    return side
