"""TRADES: Zhang et al. 2019, arXiv:1901.08573."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from iguana_server.attacks.noise import normal
from iguana_server.training.batch import Batch
from iguana_server.training.climb import climb
from iguana_server.training.learner import Learner
from iguana_server.training.recipe import Pairs
from iguana_server.training.settings import setting

START = 0.001  # standard deviation of the start, which has no gradient at the picture itself


@dataclass(frozen=True, kw_only=True)
class TRADES(Pairs):
    """Minimise CE(x) + beta KL(f(x) || f(x_adv)), with x_adv made to maximise that KL (eq. 5)."""

    name = "trades"
    paper = "Zhang et al. 2019, arXiv:1901.08573"

    beta: float = setting(6.0, low=0, high=1e6, doc="weight of robustness (1 / lambda)")

    def twins(self, learner: Learner, batch: Batch) -> Tensor:
        """Return the pictures of the ball whose logits differ most from the pictures' own."""
        frozen = learner.frozen()
        with torch.no_grad():
            clean = frozen(batch.x)
        table = self.table(batch, steps=self.steps, random_start=False)
        table.x.add_(normal(table), alpha=START).clamp_(0, 1)
        return climb(frozen, table, lambda z: divergence(clean, z))

    def loss(self, learner: Learner, batch: Batch) -> Tensor:
        """Return the cross-entropy of the pictures and the divergence of the twins, means both."""
        clean, forged = self.pair(learner, batch)
        return functional.cross_entropy(clean, batch.label) + self.beta * divergence(clean, forged).mean()


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """[n] KL(softmax p || softmax q) of logits [n, K], in nats."""
    log_p, log_q = p.log_softmax(1), q.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)
