"""SRVGGNetCompact (Wang et al. 2021, arXiv:2107.10833): super-resolution that works at the size of what goes in."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

SCALE, WIDTH, LAYERS = 4, 64, 16
RADIUS = LAYERS + 2  # pixels around its own that a pixel's picture depends on: one for each convolution
SMALL_WIDTH, SMALL_LAYERS = 32, 4  # of what `iguana-server train superres` trains unless told otherwise


class Compact(nn.Module):
    """Convolutions 3x3 and PReLU that give what nearest-neighbour enlargement lacks.

    [n, 3, H, W] in [0, 1] -> [n, 3, scale H, scale W]. The names of its tensors are those of the official checkpoints.
    """

    def __init__(self, scale: int = SCALE, width: int = WIDTH, layers: int = LAYERS) -> None:
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.PReLU(width)]
        for _ in range(layers):
            body += nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)
        self.body = nn.Sequential(*body, nn.Conv2d(width, 3 * scale**2, 3, padding=1))
        self.shuffle = nn.PixelShuffle(scale)
        self.enlarge = nn.Upsample(scale_factor=scale, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        y: Tensor = self.shuffle(self.body(x)) + self.enlarge(x)
        return y


def trained(scale: int, width: int, layers: int) -> nn.Module:
    """Build the network whose tensors have the names in a file of `iguana-server train superres`."""
    return nn.Sequential(OrderedDict(generator=Compact(scale, width, layers)))


def x2() -> nn.Module:
    """Build what the recipe's defaults train: a manifest's factory."""
    return trained(2, SMALL_WIDTH, SMALL_LAYERS)


def x4() -> nn.Module:
    """Build what the recipe trains with `--scale 4`: a manifest's factory."""
    return trained(4, SMALL_WIDTH, SMALL_LAYERS)
