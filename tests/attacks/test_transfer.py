"""Attacks through transforms: what the gradient is of, what may change, which class is aimed at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server.attacks.apgdt import APGDT
from iguana_server.attacks.base import FIRST_SUCCESS, NEVER
from iguana_server.attacks.eot import EOT, STRENGTHS
from iguana_server.attacks.patch import MASK, SQUARE, Patch
from iguana_server.attacks.pgd import PGD
from tests.attacks.alone import climb, look
from tests.nets import CLASSES, pictures, toy
from tests.problems import PROBLEMS

MODEL = toy()
STILL: dict[str, Any] = dict.fromkeys(STRENGTHS, 0.0)


@pytest.mark.parametrize("on_grid", [False, True], ids=["float", "grid"])
@pytest.mark.parametrize(("copies", "strengths"), [(0, {}), (1, STILL), (3, STILL), (7, STILL)])
def test_eot_without_transforms_is_pgd_bit_for_bit(
    copies: int, strengths: dict[str, Any], on_grid: bool
) -> None:
    common: dict[str, Any] = {"steps": 6, "stop": NEVER, "keep_last": True, "on_grid": on_grid}
    table = EOT.new(pictures(6), classes=CLASSES, copies=copies, **strengths, **common)
    wanted = climb(PGD.new(pictures(6), classes=CLASSES, **common), MODEL)
    assert torch.equal(climb(table, MODEL).x, wanted.x)
    assert torch.equal(table.best, wanted.best)
    assert not torch.equal(table.x, table.x0)


def test_the_sum_of_gradients_is_the_gradient_of_the_sum() -> None:
    """Over the photographs of one move, within 1e-6 of the largest gradient."""
    copies = 8
    options: dict[str, Any] = {"copies": copies, "steps": 1, "stop": NEVER, "seed": 4}
    table = EOT.new(pictures(5), classes=CLASSES, sample=torch.arange(5), **options)
    table.label.copy_(MODEL(table.x).argmax(1))
    x = table.x.clone().requires_grad_()
    losses = torch.zeros(())
    drawn = []
    for copy in range(copies):
        table.t.fill_(copy)
        seen = table._seen(x)
        drawn.append(seen.detach())
        losses = losses + torch.nn.functional.cross_entropy(MODEL(seen), table.label, reduction="sum")
    (wanted,) = torch.autograd.grad(losses / copies, x)
    assert all(not torch.equal(drawn[0], other) for other in drawn[1:])  # each is drawn anew
    table.t.zero_()
    for seen in drawn:
        assert torch.equal(table.points(), seen)
        table.move(*look(table, MODEL, table.points()))
    assert (table.total / copies - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    moved = (table.x - table.x0).abs().amax((1, 2, 3))
    assert (moved > 0).all()  # after the last copy, and by one step
    assert (moved <= table.alpha * (1 + 1e-5) + 1e-7).all()


def test_eot_survives_what_pgd_does_not() -> None:
    """Photographs with numbers that the attack has not drawn: what was made for them leaves the class more often."""
    camera: dict[str, Any] = {"rotation": 5.0, "scale": 0.03, "shift": 0.02, "perspective": 0.02, "blur": 0.4}
    common: dict[str, Any] = {"stop": NEVER, "keep_last": True, "epsilon": 0.2, "steps": 8}
    x0, sample = pictures(12), torch.arange(12)
    plain = climb(PGD.new(x0, classes=CLASSES, **common), MODEL)
    sturdy = climb(EOT.new(x0, classes=CLASSES, sample=sample, copies=5, **camera, **common), MODEL)
    assert plain.fooled.all()
    unseen = EOT.new(x0, classes=CLASSES, sample=sample, copies=1, seed=12345, **camera)

    def fooled(pictures: Tensor) -> float:
        share = 0.0
        for t in range(10):
            unseen.t.fill_(t)
            share += float((MODEL(unseen._seen(pictures)).argmax(1) != plain.clean).float().mean()) / 10
        return share

    assert fooled(x0) <= 0.1
    assert fooled(plain.best) <= 0.2
    assert fooled(sturdy.best) >= 0.7


@pytest.mark.parametrize("copies", [0, 2])
def test_a_patch_changes_its_pixels_only(copies: int) -> None:
    x0 = pictures(4)
    options: dict[str, Any] = {"steps": 5, "stop": NEVER, "keep_last": True, "copies": copies}
    table = Patch.new(
        x0,
        classes=CLASSES,
        size=0.5,
        top=torch.tensor([0, 1, 0.5, 0.0]),
        left=torch.tensor([0, 1, 0, 0.5]),
        **options,
    )
    changed = (climb(table, MODEL).best != x0).any(1)
    for row, (top, left) in enumerate([(0, 0), (6, 6), (3, 0), (0, 3)]):
        inside = torch.zeros(12, 12, dtype=torch.bool)
        inside[top : top + 6, left : left + 6] = True
        assert torch.equal(table.within()[row, 0], inside)
        assert not changed[row][~inside].any()
        assert changed[row].any()


def test_a_patch_is_where_the_mask_shows_it() -> None:
    """Channel by channel; one row beside it has a square."""
    x0, mask = pictures(2), pictures(2, seed=7)
    shape = torch.tensor([MASK, SQUARE])
    table = Patch.new(x0, classes=CLASSES, shape=shape, mask=mask, steps=5, stop=NEVER, keep_last=True)
    changed = climb(table, MODEL).best != x0
    assert changed[0].any()
    assert not changed[0][mask[0] < 0.5].any()
    assert not changed[1][:, 4:].any()
    assert not changed[1][:, :, 4:].any()


def test_a_patch_reaches_the_best_point_of_its_box() -> None:
    """On a plane: black or white by the sign of the weight, within the patch."""
    plane = PROBLEMS[0]
    x0 = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    (weights,) = torch.autograd.grad(plane.lead(x0).sum(), x0)
    table = Patch.new(
        x0.detach(), classes=2, loss_name="margin", stop=NEVER, label=0, size=0.5, top=1.0, steps=20
    )
    found = climb(table, plane.model).best
    wanted = torch.full((1, 1, 4, 4), 0.5)
    wanted[..., 2:, :2] = (weights[..., 2:, :2] > 0).float()
    assert (found - wanted).abs().max() <= 1e-6


def test_a_patch_of_no_size_changes_nothing() -> None:
    table = Patch.new(pictures(2), classes=CLASSES, size=0.0, steps=3, stop=NEVER, keep_last=True)
    assert torch.equal(climb(table, MODEL).best, table.x0)


def test_targeted_apgd_aims_at_the_class_of_its_rank() -> None:
    """Eleven tries of one picture: nine classes in the order of the clean logits, then again."""
    x0 = pictures(1).expand(11, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    table = APGDT.new(x0, classes=CLASSES, restart=torch.arange(11), steps=1, stop=NEVER)
    climb(table, MODEL)
    order = MODEL(x0[:1])[0].argsort(descending=True)
    label, targeted = table.aims()
    assert label.tolist() == [*order[1:10].tolist(), *order[1:3].tolist()]
    assert targeted.all()
    assert not table.targeted.any()  # what is judged
    assert (table.label == order[0]).all()


def test_targeted_apgd_leads_a_row_to_the_class_that_it_is_asked_for() -> None:
    target = (MODEL(pictures(6)).argmax(1) + 1) % CLASSES
    table = APGDT.new(
        pictures(6), classes=CLASSES, label=target, targeted=True, restart=3, epsilon=0.3, stop=FIRST_SUCCESS
    )
    climb(table, MODEL)
    assert torch.equal(table.aims()[0], target)
    assert table.fooled.float().mean() >= 0.5
    assert torch.equal(MODEL(table.best).argmax(1)[table.fooled], target[table.fooled])
