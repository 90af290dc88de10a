"""How far the members of an ensemble disagree about a picture."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from iguana_server.detectors.base import Detector, Evidence


class Disagreement(Detector):
    """What a member's answer says of which member it is: nothing where all agree.

    A forged picture lies where the members were not trained, and need not be wrong together.
    """

    name = "disagreement"
    paper = "Smith and Gal 2018, arXiv:1803.08533; members by Lakshminarayanan et al. 2017, arXiv:1612.01474"
    needs_features: ClassVar[bool] = True
    needs_members: ClassVar[bool] = True

    def score(self, evidence: Evidence) -> Tensor:
        """The mutual information of class and member, in nats: [n] in [0, log min(members, classes)]."""
        classes = len(self.spec.classes)
        n, numbers = evidence.features.shape
        return information(evidence.features.view(n, numbers // classes, classes))


def information(logits: Tensor) -> Tensor:
    """Mutual information of class and member for logits [n, M, K] of M members: [n], nats, float32.

    H(mean of p_m) - mean of H(p_m) (Smith and Gal 2018), which is the mean of KL(p_m || mean of p_m), the
    Jensen-Shannon divergence of the members. In double precision: members that are sure agree to within 1e-9.
    """
    own = logits.double().log_softmax(2)
    together = own.logsumexp(1, keepdim=True) - math.log(logits.shape[1])
    return (own.exp() * (own - together)).sum(2).mean(1).clamp_min(0).float()
