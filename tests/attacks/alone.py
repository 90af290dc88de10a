"""Run a table by hand, without the engine: what the engine must equal."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from iguana_server.attacks.base import Attack, aim
from iguana_server.attacks.losses import LOSSES

Net = Callable[[Tensor], Tensor]
T = TypeVar("T", bound=Attack)


def look(
    table: Attack, model: Net, points: Tensor, *, gradient: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, losses and gradient (zeros [n] if not wanted) at these points."""
    x = points.detach().clone().requires_grad_(gradient)
    logits = model(x)
    own, targeted = table.aims()
    label, clean = aim(logits, own, table.clean)
    loss = LOSSES[table.loss_name](logits, label, clean, targeted)
    grad = torch.autograd.grad(loss.sum(), x)[0] if gradient else torch.zeros(len(table))
    return logits.detach(), loss.detach(), grad


def climb(table: T, model: Net, *, last: bool = True) -> T:
    """Move a table, all of whose rows have the same looks and kind of start, to its end; the last look may be left out."""
    always = torch.ones_like(table.done)
    if table.opens().all():
        z = table.candidates()
        logits, loss, _ = look(table, model, z, gradient=False)
        table.observe(z, logits, loss, always)
        table.begin()
    columns = {name: getattr(table, name) for name in table.columns()}
    for _ in range(int(type(table).looks(columns)[0])):
        z = table.points()
        logits, loss, grad = look(table, model, z, gradient=table.gradient)
        table.observe(z, logits, loss, table.judged())
        table.move(logits, loss, grad)
    if last:
        z = table.candidates()
        logits, loss, _ = look(table, model, z, gradient=False)
        table.observe(z, logits, loss, always)
    return table
