"""The engine's attacks, stepped by hand in the training loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from iguana_server.attacks.base import Attack, aim
from iguana_server.attacks.losses import LOSSES

Net = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor], Tensor]  # logits [n, K] -> [n], to climb


def climb(model: Net, table: Attack, objective: Objective | None = None, *, judge: bool = False) -> Tensor:
    """Make all moves of a table whose rows have labels and as many looks; return its last iterates [n, C, H, W].

    Without an objective the table's own loss is climbed. Unless asked to, nothing is judged: training takes
    the last iterate, whether it fools or not, and so spares the look that comes after the last move.
    """
    if judge:
        _observe(model, table)
    if bool(table.opens().all()):
        table.begin()
    for _ in range(int(type(table).looks({name: getattr(table, name) for name in table.columns()}).max())):
        points = table.points().detach().clone().requires_grad_()
        logits = model(points)
        loss = _loss(table, logits) if objective is None else objective(logits)
        (grad,) = torch.autograd.grad(loss.sum(), points)
        if judge:
            table.observe(points.detach(), logits.detach(), loss.detach(), table.judged())
        table.move(logits.detach(), loss.detach(), grad)
    if judge:
        _observe(model, table)
    return table.candidates()


@torch.no_grad()
def _observe(model: Net, table: Attack) -> None:
    """Look at the candidates, and judge them."""
    z = table.candidates()
    logits = model(z)
    table.observe(z, logits, _loss(table, logits), torch.ones_like(table.done))


def _loss(table: Attack, logits: Tensor) -> Tensor:
    own, targeted = table.aims()
    label, clean = aim(logits, own, table.clean)
    return LOSSES[table.loss_name](logits, label, clean, targeted)
