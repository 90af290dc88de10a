"""Several networks, trained side by side: Lakshminarayanan et al. 2017, arXiv:1612.01474."""

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from iguana_server.models import fashion_mnist as model
from iguana_server.models.ensemble import Ensemble
from iguana_server.training.batch import Batch
from iguana_server.training.learner import Learner, normalise
from iguana_server.training.recipe import Recipe
from iguana_server.training.settings import setting


@dataclass(frozen=True, kw_only=True)
class Members(Recipe):
    """Minimise the sum of CE over members that differ in their first weights alone.

    A member's gradient is of its own loss, so each is trained as if alone. They see the same batches: Fort et
    al. 2019 (arXiv:1912.02757) find the first weights to be what makes members differ.
    """

    name = "ensemble"
    paper = "Lakshminarayanan et al. 2017, arXiv:1612.01474"

    width: int = setting(model.MEMBER_WIDTH, low=1, high=1024, doc="channels of a member's first convolution")
    members: int = setting(model.MEMBERS, low=2, high=100, doc="networks")

    def net(self) -> nn.Module:
        """Build all members as one."""
        return model.ensemble(self.members, self.width)

    def loss(self, learner: Learner, batch: Batch) -> Tensor:
        """Return the sum of the members' mean cross-entropies."""
        logits = cast(Ensemble, learner.net).each(normalise(batch.x))
        losses = [functional.cross_entropy(z, batch.label) for z in logits]
        return sum(losses[1:], losses[0])
