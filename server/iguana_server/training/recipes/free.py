"""Free adversarial training: Shafahi et al. 2019, arXiv:1904.12843."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from iguana_server.training.batch import Batch
from iguana_server.training.learner import Learner
from iguana_server.training.recipe import Adversarial
from iguana_server.training.settings import setting


@dataclass(frozen=True, kw_only=True)
class Free(Adversarial):
    """Minimise CE(x + delta); one backward pass moves the weights down and delta up (algorithm 1).

    A batch is replayed; the next goes on from its delta, an epoch begins with none. x + delta is clipped to
    [0, 1] as in all of the engine's attacks, and delta with it, which the authors' code leaves as it is. As
    one pass serves both, BatchNorm is in training mode in the attack too.
    """

    name = "free"
    paper = "Shafahi et al. 2019, arXiv:1904.12843"

    epochs: int = setting(
        4, low=1, high=10_000, doc="times that every picture is seen, with `replay` steps each"
    )
    replay: int = setting(4, low=1, high=1000, doc="steps for each batch (m)")

    @property
    def replays(self) -> int:
        """Steps for each batch."""
        return self.replay

    def losses(self, learner: Learner, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """Yield the mean cross-entropy at x + delta; once it is descended, delta takes its step."""
        delta: Tensor | None = None
        for batch in batches:
            table = self.table(batch, steps=self.replay, random_start=False, alpha=self.epsilon)
            if delta is not None:  # the last batch of an epoch may be smaller
                table.x.add_(delta[: len(batch)]).clamp_(0, 1)
            for _ in range(self.replay):
                x = table.points().clone().requires_grad_()
                logits = learner(x)
                loss = functional.cross_entropy(logits, batch.label, reduction="none")
                yield loss.mean()
                assert x.grad is not None  # noqa: S101 - the caller has gone backward
                table.move(logits.detach(), loss.detach(), x.grad)
            delta = table.x - table.x0
