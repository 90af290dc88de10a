"""A step: one look at the model for rows of any lanes, one gradient where it is wanted.

The rows of different attacks, budgets and ages lie in one batch. Their losses are summed,
so each row's gradient is its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from iguana_server.attacks.base import aim
from iguana_server.attacks.losses import LOSSES, lead
from iguana_server.detectors.watch import Watch
from iguana_server.engine.meter import Meter
from iguana_server.engine.row import Row


@dataclass(frozen=True, slots=True)
class Evasion:
    """What detectors are to rows, see Attack: allowed [m] in nats, weight [m], in_turn [m] bool."""

    allowed: Tensor
    weight: Tensor
    in_turn: Tensor

    def at(self, index: Tensor | slice) -> Evasion:
        """Return these rows."""
        return Evasion(*(getattr(self, field.name)[index] for field in fields(self)))

    def missed(self, suspicion: Tensor) -> Tensor:
        """[n] by how many nats rows are too suspicious; not above 0 where they pass."""
        return suspicion - self.allowed

    def loss(self, loss: Tensor, gap: Tensor, suspicion: Tensor) -> Tensor:
        """[n] the loss of the model, and of the detectors that see through a row.

        Either both at once (Carlini and Wagner 2017, arXiv:1705.07263), or suspicion alone where the model is
        fooled, gap [n] being above 0 (selective gradients, Bryniarski et al. 2022, arXiv:2106.15023).
        """
        over = self.missed(suspicion).relu()
        return torch.where(self.in_turn & (gap > 0), -over, loss - self.weight * over)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that look together: images [m, C, H, W] and, for attacks, what their loss needs."""

    images: Tensor
    strict: list[bool]
    loss_name: str = ""  # none: a look only
    label: Tensor | None = None
    clean: Tensor | None = None
    targeted: Tensor | None = None
    leaves: Tensor | None = None  # [m] bool: a row that reaches its goal here has no use for a gradient
    evasion: Evasion | None = None  # where detectors watch

    def __len__(self) -> int:
        """Rows."""
        return len(self.images)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model said of a part: logits [m, K], loss [m], grad as the images, or zeros [m].

    `backward` [m] says which rows have a gradient; of those that have none it is zero. `features` are [m, F]
    where they were asked for, else [m, 0]; `suspicion` [m] is in nats where detectors watch, else 0.
    """

    logits: Tensor
    loss: Tensor
    grad: Tensor
    backward: Tensor
    features: Tensor
    suspicion: Tensor


@dataclass(frozen=True, slots=True)
class Pass:
    """Rows [start, stop) of the ordered batch, padded to `size`."""

    start: int
    stop: int
    size: int


def noted(meter: Meter, name: str, rows: Sequence[Row], *, gradient: bool) -> Callable[[Pass], None]:
    """Return what tells the meter of every pass over these rows, of the model of that name, as it ends."""
    spans = list({row.job: row.job.span for row in rows if row.job.span is not None}.values())
    begun = time.perf_counter()

    def note(one: Pass) -> None:
        nonlocal begun
        now = time.perf_counter()
        kind = "gradient" if gradient else "forward"
        meter.step(name, kind, one.stop - one.start, one.size, now - begun, spans)
        begun = now

    return note


def passes(strict: int, total: int, sizes: Sequence[int], max_batch: int) -> list[Pass]:
    """Cut a batch whose first `strict` rows want STRICT into passes.

    Passes with a strict row have one of `sizes` (ascending): the largest that wants no more padding than
    the smallest would; the last takes others along, then padding. The rest go in passes of at most
    `max_batch`, unpadded.
    """
    cut: list[Pass] = []
    start = 0
    while start < total:
        if start < strict:
            padded = -(-(strict - start) // sizes[0]) * sizes[0]
            size = max(size for size in sizes if size <= padded)
            stop = min(start + size, total)
        else:
            stop = min(start + max_batch, total)
            size = stop - start
        cut.append(Pass(start, stop, size))
        start = stop
    return cut


def look(
    model: Callable[[Tensor], Tensor],
    parts: Sequence[Part],
    *,
    gradient: bool,
    sizes: Sequence[int],
    max_batch: int,
    note: Callable[[Pass], None],
    features: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    watch: Watch | None = None,
) -> list[Seen]:
    """Show all rows to the model, in as few passes as their determinism allows; `note` is told after each.

    Where `features` is given, it is called in place of the model, without gradient: it returns them, too. Where
    detectors `watch` the model, all parts are under the same.
    A row that leaves at this look has no gradient, whoever is beside it; where all of a pass leave, the
    pass has no backward.
    """
    lengths = [len(part) for part in parts]
    strict = [flag for part in parts for flag in part.strict]
    order = sorted(range(len(strict)), key=lambda i: not strict[i])
    straight = order == list(range(len(order)))
    images = parts[0].images if len(parts) == 1 else torch.cat([part.images for part in parts])
    names = [part.loss_name for part in parts for _ in range(len(part))]
    goals = [_column(parts, lengths, name) for name in ("label", "clean", "targeted", "leaves")]
    evasions = [part.evasion for part in parts if part.evasion is not None]
    evasion = _joined(evasions) if evasions else None
    if not straight:
        index = torch.tensor(order, device=images.device)
        images, goals = images[index], [goal[index] for goal in goals]
        evasion = evasion and evasion.at(index)
        names = [names[i] for i in order]
    looks: list[Seen] = []
    for one in passes(sum(strict), len(order), sizes, max_batch):
        rows = slice(one.start, one.stop)
        looks.append(
            _pass(
                model,
                images[rows],
                one.size,
                names[rows],
                [goal[rows] for goal in goals],
                gradient=gradient,
                features=features,
                watch=watch,
                evasion=evasion and evasion.at(rows),
            )
        )
        note(one)
    columns = [[getattr(seen, field.name) for seen in looks] for field in fields(Seen)]
    seen = [column[0] if len(column) == 1 else torch.cat(column) for column in columns]
    if not straight:
        back = torch.empty_like(index).index_copy_(0, index, torch.arange(len(index), device=index.device))
        seen = [column[back] for column in seen]
    split = [torch.split(column, lengths) for column in seen]
    return [Seen(*part) for part in zip(*split, strict=True)]


def heard(part: Part, logits: Tensor) -> Seen:
    """Return what `look` would, without gradient, of an attack's part where the logits [m, K] come from elsewhere."""
    assert part.label is not None and part.clean is not None and part.targeted is not None  # noqa: S101, PT018
    label, clean = aim(logits, part.label, part.clean)
    loss = LOSSES[part.loss_name](logits, label, clean, part.targeted)
    nothing = torch.zeros(len(part))
    return Seen(logits, loss, nothing, nothing.bool(), nothing[:, None][:, :0], nothing)


def _pass(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    size: int,
    names: Sequence[str],
    goals: Sequence[Tensor],
    *,
    gradient: bool,
    features: Callable[[Tensor], tuple[Tensor, Tensor]] | None,
    watch: Watch | None,
    evasion: Evasion | None,
) -> Seen:
    """One forward, and one backward to the images if wanted; returns what concerns the real rows."""
    n = len(images)
    label, clean, targeted, leaves = goals
    none, unwatched = leaves.new_zeros(n), images.new_zeros(n)
    x = images.detach()
    if size > n:
        x = torch.cat([x, x.new_zeros((size - n, *x.shape[1:]))])
    if not gradient:
        with torch.inference_mode():
            suspicion, inner = unwatched, x.new_empty(len(x), 0)
            if watch is not None:
                logits, suspicion = watch(x)
            elif features is not None:
                logits, inner = features(x)
            else:
                logits = model(x)
            logits, suspicion = logits[:n], suspicion[:n]
            loss = _losses(logits, names, label, clean, targeted)
            if evasion is not None:
                loss = evasion.loss(loss, _gap(logits, label, clean, targeted), suspicion)
            return Seen(logits, loss, x.new_zeros(n), none, inner[:n], suspicion)
    x = x.requires_grad_()
    logits, suspicion = (model(x), unwatched) if watch is None else watch(x)
    logits, suspicion = logits[:n], suspicion[:n]
    loss = _losses(logits, names, label, clean, targeted)
    z = logits.detach()
    gap = _gap(z, label, clean, targeted)
    reached = gap > 0
    if evasion is not None:
        loss = evasion.loss(loss, gap, suspicion)
        suspicion = suspicion.detach()
        reached &= evasion.missed(suspicion) < 0
    leaving = leaves & reached
    # On a GPU the questions would keep the host waiting for the forward pass.
    if not images.is_cuda and bool(leaving.all()):
        return Seen(z, loss.detach(), torch.zeros_like(images), none, x.new_empty(n, 0), suspicion)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    grad = grad[:n]
    if images.is_cuda or bool(leaving.any()):
        grad.masked_fill_(leaving.view(-1, 1, 1, 1), 0)
    return Seen(z, loss.detach(), grad, ~leaving, x.new_empty(n, 0), suspicion)


def _gap(logits: Tensor, label: Tensor, clean: Tensor, targeted: Tensor) -> Tensor:
    """[n] by how many logits the goal is reached (above 0) or missed."""
    margin = lead(logits, aim(logits, label, clean)[0])
    return torch.where(targeted, -margin, margin)


def _joined(evasions: Sequence[Evasion]) -> Evasion:
    """One after another."""
    columns = [[getattr(one, field.name) for one in evasions] for field in fields(Evasion)]
    return Evasion(*(torch.cat(column) for column in columns))


def _losses(logits: Tensor, names: Sequence[str], label: Tensor, clean: Tensor, targeted: Tensor) -> Tensor:
    """[n] each row's own loss; 0 for rows that only look."""
    kinds = set(names) - {""}
    if not kinds:
        return logits.new_zeros(len(logits))
    label, clean = aim(logits, label, clean)
    if len(kinds) == 1 and "" not in names:
        return LOSSES[names[0]](logits, label, clean, targeted)
    losses = logits.new_zeros(len(logits))
    for kind in sorted(kinds):
        rows = torch.tensor([i for i, name in enumerate(names) if name == kind], device=logits.device)
        loss = LOSSES[kind](logits[rows], label[rows], clean[rows], targeted[rows])
        losses = losses.index_copy(0, rows, loss)
    return losses


def _column(parts: Sequence[Part], lengths: Sequence[int], name: str) -> Tensor:
    """A goal's column over all parts; those that have none are given zeros."""
    dtype, device = torch.int64 if name in ("label", "clean") else torch.bool, parts[0].images.device
    columns = [getattr(part, name) for part in parts]
    made = [
        torch.zeros(n, dtype=dtype, device=device) if c is None else c
        for c, n in zip(columns, lengths, strict=True)
    ]
    return torch.cat(made)
