"""Fast adversarial training, FGSM-RS: Wong et al. 2020, arXiv:2001.03994."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from iguana_server.training.batch import Batch
from iguana_server.training.climb import climb
from iguana_server.training.learner import Learner
from iguana_server.training.recipe import Adversarial
from iguana_server.training.settings import setting


@dataclass(frozen=True, kw_only=True)
class Fast(Adversarial):
    """Minimise CE(x_adv), with x_adv one long step from a uniform point of the ball.

    It can overfit to that one step all at once (the paper's 5.4), and is then not robust at all: the robust
    accuracy under PGD, which is told after every epoch, shows it.
    """

    name = "fast"
    paper = "Wong et al. 2020, arXiv:2001.03994"

    stride: float = setting(1.25, low=0, high=2, doc="length of the step, in units of epsilon")

    def loss(self, learner: Learner, batch: Batch) -> Tensor:
        """Return the mean cross-entropy after the step."""
        alpha = min(1.0, self.stride * self.epsilon)
        twins = climb(learner.frozen(), self.table(batch, steps=1, alpha=alpha))
        return functional.cross_entropy(learner(twins), batch.label)
