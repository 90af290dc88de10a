"""Auto-PGD in an Linf ball: Croce and Hein 2020, arXiv:2003.01690, algorithm 1."""

import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Attack, param, state
from iguana_server.attacks.noise import uniform


class APGD(Attack):
    """PGD with momentum whose step halves, and which goes back to its best point, when progress stalls.

    Follows the authors' code in order of operations, also where its first checkpoint
    counts the first loss as a climb if it is above 0.
    """

    name = "apgd"
    paper = "Croce and Hein 2020, arXiv:2003.01690"

    epsilon: Tensor = param(8 / 255, low=0, high=1, doc="radius of the Linf ball, in units of a [0, 1] pixel")
    steps: Tensor = param(100, low=1, high=10_000, kind="int", doc="number of moves")
    rho: Tensor = param(0.75, low=0, high=1, doc="share of climbing moves below which the step halves")
    random_start: Tensor = param(
        1, low=0, high=1, kind="bool", doc="start at a random point whose largest change is epsilon"
    )

    x_old: Tensor = state("image")
    x_top: Tensor = state("image")  # of the highest loss
    grad_top: Tensor = state("image")
    loss_top: Tensor = state()
    loss_check: Tensor = state()  # loss_top at the last checkpoint
    loss_old: Tensor = state()
    length: Tensor = state()  # of a step (eta)
    climbs: Tensor = state(dtype=torch.int64)  # since the last checkpoint
    age: Tensor = state(dtype=torch.int64)  # moves since the last checkpoint
    period: Tensor = state(dtype=torch.int64)  # moves to the next checkpoint
    halved: Tensor = state(dtype=torch.bool, fill=True)  # at the last checkpoint

    def opens(self) -> Tensor:
        """Rows with a random start."""
        return self.random_start

    def begin(self) -> None:
        """x <- x0 + epsilon u / max|u|."""
        u = uniform(self)
        u = self.epsilon.view(-1, 1, 1, 1) * u / u.abs().amax((1, 2, 3), keepdim=True)
        self.x.copy_(self.x0)
        self.x.add_(u).clamp_(0, 1)

    def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
        """Update the best point, halve the step at a checkpoint without progress, move."""
        first = self.t == 0
        self._start(first)
        top = first | (loss > self.loss_top)
        ops.keep_(self.x_top, self.x, top)
        ops.keep_(self.grad_top, grad, top)
        self.loss_top.copy_(torch.where(top, loss, self.loss_top))
        self.loss_check.copy_(torch.where(first, loss, self.loss_check))
        self.climbs += ~first & (loss > self.loss_old)
        self.loss_old.copy_(torch.where(first, 0.0, loss))
        self.age += ~first
        grad = self._check(grad)
        momentum = torch.where(first, 1.0, 0.75)
        ops.apgd_step_(self.x, self.x_old, self.x0, grad, self.epsilon, self.length, momentum)

    def _start(self, first: Tensor) -> None:
        """Set the state of rows that make their first move."""
        ops.keep_(self.x_old, self.x, first)
        self.length.copy_(torch.where(first, self.epsilon * 2.0, self.length))
        self.period.copy_(torch.where(first, self._share(0.22), self.period))

    def _share(self, share: float) -> Tensor:
        """[n] max(int(share * steps), 1), in float64 as the authors' code has it."""
        return (self.steps.double() * share).long().clamp_min(1)

    def _check(self, grad: Tensor) -> Tensor:
        """At a checkpoint: halve the step of stalled rows and go back to their best point; returns the gradient there."""
        due = (self.t > 0) & (self.age == self.period)
        stalled = self.climbs <= self.period * self.rho
        stuck = ~self.halved & (self.loss_check >= self.loss_top)
        halve = due & (stalled | stuck)
        self.halved.copy_(torch.where(due, halve, self.halved))
        self.loss_check.copy_(torch.where(due, self.loss_top, self.loss_check))
        self.length.copy_(torch.where(halve, self.length / 2.0, self.length))
        self.climbs.masked_fill_(due, 0)
        self.age.masked_fill_(due, 0)
        shorter = torch.maximum(self.period - self._share(0.03), self._share(0.06))
        self.period.copy_(torch.where(due, shorter, self.period))
        ops.keep_(self.x, self.x_top, halve)
        back = grad.clone(memory_format=torch.preserve_format)
        ops.keep_(back, self.grad_top, halve)
        return back
