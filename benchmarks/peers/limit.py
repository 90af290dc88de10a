"""The limit: a bare loop over a frozen, folded, channels_last network.

A step is one forward, one backward to the pixels alone, and a move in place. With `early`, rows that are fooled
leave the batch before the move, as a careful user would write it; without, nothing is looked at but gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from benchmarks.peers.task import Task
from benchmarks.peers.victim import Normalised, Victim
from iguana_server.models.fold import fold

Move = Callable[[Tensor, Tensor, Tensor, Tensor, Task], None]
TINY = 1e-12


class Prepared(nn.Module):
    """The victim's network, frozen and folded; its normalisation is one multiply-add."""

    def __init__(self, victim: Normalised) -> None:
        super().__init__()
        net = fold(copy.deepcopy(victim.net).eval()).requires_grad_(False)
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.scale, self.bias = 1 / victim.std, -victim.mean / victim.std

    def forward(self, x: Tensor) -> Tensor:
        """[n, C, H, W] in [0, 1] -> logits [n, K]."""
        logits: Tensor = self.net(torch.addcmul(self.bias, x, self.scale))
        return logits


def linf(x: Tensor, x0: Tensor, grad: Tensor, _: Tensor, task: Task) -> None:
    """Step by the gradient's sign, into the ball and the box."""
    x.add_(grad.sign_(), alpha=task.alpha)
    torch.clamp(x, (x0 - task.epsilon).clamp_(0, 1), (x0 + task.epsilon).clamp_(0, 1), out=x)


def l2(x: Tensor, x0: Tensor, grad: Tensor, _: Tensor, task: Task) -> None:
    """Step along the gradient, into the ball, then the box."""
    x.addcmul_(grad, task.alpha / _norm(grad)).sub_(x0)
    x.mul_((task.epsilon / _norm(x)).clamp_(max=1)).add_(x0).clamp_(0, 1)


def momentum(x: Tensor, x0: Tensor, grad: Tensor, state: Tensor, task: Task) -> None:
    """Add the gradient of unit mean to the state, then step by the state's sign."""
    state.addcdiv_(grad, grad.abs().mean((1, 2, 3), keepdim=True).clamp_(min=TINY))
    linf(x, x0, state.clone(memory_format=torch.preserve_format), state, task)


def _norm(image: Tensor) -> Tensor:
    norm: Tensor = image.flatten(1).norm(dim=1).clamp_(min=TINY).view(-1, 1, 1, 1)
    return norm


ATTACKS: dict[str, Move] = {"fgsm": linf, "pgd": linf, "pgdl2": l2, "mifgsm": momentum}


@contextmanager
def contender(victim: Victim) -> Iterator[Callable[[Task], Tensor]]:
    """Attack the prepared network."""
    net = Prepared(victim.net)
    x0 = victim.images.contiguous(memory_format=torch.channels_last)

    def run(task: Task) -> Tensor:
        loop = compacting if task.early else plain
        return loop(net, x0, victim.labels, task, ATTACKS[task.attack])

    yield run


def plain(net: nn.Module, x0: Tensor, labels: Tensor, task: Task, move: Move) -> Tensor:
    """All rows, all steps."""
    x, state = x0.clone(), torch.zeros_like(x0)
    for _ in range(task.steps):
        x.requires_grad_()
        (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(x), labels, reduction="sum"), x)
        x = x.detach()
        move(x, x0, grad, state, task)
    return x


def compacting(net: nn.Module, x0: Tensor, labels: Tensor, task: Task, move: Move) -> Tensor:
    """Rows that are fooled leave."""
    found = x0.clone()
    x, clean, state = x0.clone(), x0, torch.zeros_like(x0)
    place = torch.arange(len(x0), device=x0.device)
    for _ in range(task.steps):
        x.requires_grad_()
        logits = net(x)
        (grad,) = torch.autograd.grad(nn.functional.cross_entropy(logits, labels, reduction="sum"), x)
        x = x.detach()
        stay = logits.argmax(1) == labels
        if not stay.all():
            found[place[~stay]] = x[~stay]
            x, clean, state, grad = x[stay], clean[stay], state[stay], grad[stay]
            labels, place = labels[stay], place[stay]
            if not len(place):
                return found
        move(x, clean, grad, state, task)
    found[place] = x
    return found
