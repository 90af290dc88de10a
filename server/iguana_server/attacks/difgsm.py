"""MI-FGSM with input diversity: Xie et al. 2019, arXiv:1803.06978."""

import torch
from torch import Tensor

from iguana_server.attacks.base import param
from iguana_server.attacks.mifgsm import MIFGSM
from iguana_server.attacks.noise import draws
from iguana_server.transforms.resize import resize_pad
from iguana_server.transforms.rows import laid_out, on_rows, pullback


class DIFGSM(MIFGSM):
    """MI-FGSM whose looks are at pictures shrunk and padded at random.

    Those are not candidates: a look is judged where the picture was left as it is, and the last is.
    """

    name = "difgsm"
    paper = "Xie et al. 2019, arXiv:1803.06978"

    probability: Tensor = param(0.5, low=0, high=1, doc="share of the looks at a shrunk picture (p)")
    scale: Tensor = param(0.9, low=0, high=1, doc="least side of a shrunk picture, as a share of its own")

    def opens(self) -> Tensor:
        """All rows: the clean image is looked at as it is."""
        return torch.ones_like(self.done)

    def judged(self) -> Tensor:
        """Rows whose next look is at the iterate itself."""
        return ~self._shrinks(self._draws())

    def points(self) -> Tensor:
        """The iterate, in some rows shrunk and padded."""
        return laid_out(self._seen(self.candidates()), self.x)

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Take the gradient back through the transform, then as MI-FGSM."""
        super().step(logits, loss, pullback(self._seen, self.x, grad))

    def _seen(self, x: Tensor) -> Tensor:
        u = self._draws()
        frame = torch.tensor(x.shape[2:], device=x.device)
        least = (frame * self.scale[:, None]).long().clamp_min(1)
        size = least + ((frame - least) * u[:, 1:2]).long()
        start = ((frame - size) * u[:, 2:]).long()
        return on_rows(
            x, self._shrinks(u), lambda x, i: resize_pad(x, *size[i].unbind(1), *start[i].unbind(1))
        )

    def _draws(self) -> Tensor:
        """[n, 4]: whether to shrink, the size, where the lines and the columns begin."""
        return draws(self, 4)

    def _shrinks(self, u: Tensor) -> Tensor:
        return u[:, 0] < self.probability
