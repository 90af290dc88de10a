"""SRVGGNetCompact (Wang et al. 2021, arXiv:2107.10833): super-resolution that works at the size of what goes in."""

from __future__ import annotations

from torch import Tensor, nn

SCALE, WIDTH, LAYERS = 4, 64, 16
RADIUS = LAYERS + 2  # pixels around its own that a pixel's picture depends on: one for each convolution


class Compact(nn.Module):
    """Convolutions 3x3 and PReLU that give what nearest-neighbour enlargement lacks.

    [n, 3, H, W] in [0, 1] -> [n, 3, 4H, 4W]. The names of its tensors are those of the official checkpoints.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), nn.PReLU(WIDTH)]
        for _ in range(LAYERS):
            layers += nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.PReLU(WIDTH)
        self.body = nn.Sequential(*layers, nn.Conv2d(WIDTH, 3 * SCALE**2, 3, padding=1))
        self.shuffle = nn.PixelShuffle(SCALE)
        self.enlarge = nn.Upsample(scale_factor=SCALE, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        y: Tensor = self.shuffle(self.body(x)) + self.enlarge(x)
        return y
