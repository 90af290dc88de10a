"""MI-FGSM with translation-invariant gradients: Dong et al. 2019, arXiv:1904.02884."""

from functools import cache

from torch import Tensor

from iguana_server.attacks.base import param
from iguana_server.attacks.mifgsm import MIFGSM
from iguana_server.transforms.blur import convolve, gaussian
from iguana_server.transforms.rows import laid_out


class TIFGSM(MIFGSM):
    """MI-FGSM along gradients that are smoothed by a Gaussian, as if the picture were looked at from all places near."""

    name = "tifgsm"
    paper = "Dong et al. 2019, arXiv:1904.02884"

    reach: Tensor = param(
        7,
        low=0,
        high=15,
        kind="int",
        doc="pixels from the kernel's middle to its edge, where it is three standard deviations off",
    )

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Smooth the gradient (section 3.2), then as MI-FGSM."""
        smooth = convolve(grad, [_kernel(reach) for reach in self.reach.tolist()])
        super().step(logits, loss, laid_out(smooth, grad))


@cache
def _kernel(reach: int) -> Tensor:
    """[2 reach + 1] weights, with a standard deviation of reach / 3."""
    return gaussian(reach, reach / 3 or 1.0)
