"""Adversarial logit pairing: Kannan et al. 2018, arXiv:1803.06373."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from iguana_server.training.batch import Batch
from iguana_server.training.learner import Learner
from iguana_server.training.recipe import Pairs
from iguana_server.training.settings import setting


@dataclass(frozen=True, kw_only=True)
class ALP(Pairs):
    """Minimise CE(x) + CE(x_adv) + pairing mean((z - z_adv)^2); without pairing that is `online`."""

    name = "alp"
    paper = "Kannan et al. 2018, arXiv:1803.06373"

    pairing: float = setting(0.5, low=0, high=1e6, doc="weight of the distance of the logits (lambda)")

    def loss(self, learner: Learner, batch: Batch) -> Tensor:
        """Return the summed loss and the pairing of the logits."""
        clean, forged = self.pair(learner, batch)
        loss = functional.cross_entropy(clean, batch.label)
        loss = loss + functional.cross_entropy(forged, batch.label)
        return loss + self.pairing * (clean - forged).square().mean()
