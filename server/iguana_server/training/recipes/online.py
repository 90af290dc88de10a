"""Adversarial training online, with the summed loss of CS230's lecture: Goodfellow et al. 2015, Madry et al. 2018."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from iguana_server.training.batch import Batch
from iguana_server.training.learner import Learner
from iguana_server.training.recipe import Pairs
from iguana_server.training.settings import setting


@dataclass(frozen=True, kw_only=True)
class Online(Pairs):
    """Minimise clean CE(x) + CE(x_adv), with x_adv made anew by PGD at every step.

    The lecture's sum has clean = 1, Madry's saddle point 0: that spares the pass of the pictures as they are.
    """

    name = "online"
    paper = "Goodfellow et al. 2015, arXiv:1412.6572; Madry et al. 2018, arXiv:1706.06083"

    clean: float = setting(1.0, low=0, high=1e6, doc="weight of the loss of the pictures as they are")

    def loss(self, learner: Learner, batch: Batch) -> Tensor:
        """Return the weighted sum of the two mean cross-entropies."""
        if self.clean == 0:
            return functional.cross_entropy(learner(self.twins(learner, batch)), batch.label)
        plain, forged = self.pair(learner, batch)
        loss = functional.cross_entropy(plain, batch.label)
        return self.clean * loss + functional.cross_entropy(forged, batch.label)
