"""What attacks share that ask for answers only: a budget that counts every look."""

from collections.abc import Mapping

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Attack, param


class Query(Attack):
    """Forward passes alone: the first look is at the clean image, and `queries` looks are the end of it."""

    gradient = False

    queries: Tensor = param(
        1000, low=3, high=10_000, kind="int", doc="number of looks at the model, all told"
    )

    @classmethod
    def looks(cls, values: Mapping[str, Tensor]) -> Tensor:
        """All but the one that opens and the one that is last."""
        return values["queries"] - 2

    def opens(self) -> Tensor:
        """All rows: the clean image is looked at first."""
        return torch.ones_like(self.done)

    def ends(self) -> Tensor:
        """[n] bool: rows that make their last move."""
        return self.t + 3 == self.queries

    def draw(self, number: Tensor, size: int) -> Tensor:
        """[n, size] uniform in [0, 1), of the table's seeds and the draw's number [n].

        `begin` makes draw 0, the move t draw t + 1.
        """
        return ops.philox_uniform(self.seed, self.sample, self.restart, number, size)

    def draw_image(self, number: Tensor) -> Tensor:
        """[n, C, H, W] uniform in [0, 1), as `draw`."""
        return self.laid_out(self.draw(number, self.x0[0].numel()).view(self.x0.shape))

    def draw_normal(self, number: Tensor) -> Tensor:
        """[n, C, H, W] standard normal, as `draw`."""
        flat = ops.philox_normal(self.seed, self.sample, self.restart, number, self.x0[0].numel())
        return self.laid_out(flat.view(self.x0.shape))

    def laid_out(self, images: Tensor) -> Tensor:
        """Copy [n, C, H, W] into the memory format of the table's images."""
        return torch.empty_like(self.x0).copy_(images)


def wide(column: Tensor) -> Tensor:
    """[n] -> [n, 1, 1, 1], to meet images."""
    return column.view(-1, 1, 1, 1)
