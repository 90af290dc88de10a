"""Minimum-norm attacks: closed forms, and what must hold whatever the model is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server.attacks.base import NEVER
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.attacks.fab import project
from iguana_server.attacks.minimumnorm import L2, LINF, MinimumNorm, dot, total
from iguana_server.engine import Ended, Engine, Forged
from tests.attacks.alone import climb
from tests.engine.bench_by_hand import job
from tests.nets import CLASSES, pictures, toy

MODEL = toy()
NAMES = [name for name, attack in ATTACKS.items() if issubclass(attack, MinimumNorm)]


def new(name: str, x0: Tensor, classes: int, **columns: Any) -> MinimumNorm:
    table = ATTACKS[name].new(x0, classes=classes, **columns)
    assert isinstance(table, MinimumNorm)
    return table


# CS230's linear example, <w, x> = -4, moved into the box: x -> (x + 5) / 10 and w -> 10 w.
W = torch.tensor([1.0, 3.0, -1.0, 2.0, 2.0, 3.0])
X = torch.tensor([1.0, -1.0, 2.0, 0.0, 3.0, -2.0])


def linear(x: Tensor) -> Tensor:
    score = (x.flatten(1) * 10 - 5) @ W
    return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize("name", NAMES)
def test_on_a_plane_the_change_is_f_over_w(name: str) -> None:
    """|f| / |w|_2 = 4 / sqrt(28), and 4 / |w|_1 = 1 / 3 in Linf, within 1 % (DeepFool overshoots by 2 %)."""
    x0 = ((X + 5) / 10).view(1, 1, 2, 3)
    options: dict[str, Any] = {"overshoot": 0.005} if name == "deepfool" else {}
    metrics = [0, 1] if "metric" in ATTACKS[name].parameters() else [None]
    for metric in metrics:
        if metric is not None:
            options["metric"] = metric
        table = climb(new(name, x0, 2, stop=NEVER, steps=200, **options), linear)
        assert table.fooled.all()
        least = (4 / 12 if metric == LINF else 4 / 28**0.5) / 10
        assert 1 - 1e-4 <= float(table.distance(table.best)) / least <= 1.01, metric


@pytest.mark.parametrize("metric", [L2, LINF], ids=["l2", "linf"])
def test_fmn_crosses_a_plane_whose_normal_leaves_the_box(metric: int) -> None:
    """Most of the way would be below black: the estimate, which does not know the box, never comes true."""
    x0 = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.3, 0.4]).view(1, 1, 2, 3)
    normal = torch.tensor([-3.0, -2.0, -3.0, -2.0, 1.0, 1.0])

    def plane(x: Tensor) -> Tensor:
        score = 0.9 - x.flatten(1) @ normal
        return torch.stack([score, torch.zeros_like(score)], 1)

    table = climb(new("fmn", x0, 2, stop=NEVER, steps=100, metric=metric), plane)
    assert table.fooled.all()
    least = 0.1 if metric == LINF else 0.2 / 2**0.5
    assert 1 - 1e-4 <= float(table.distance(table.best)) / least <= 1.01


@pytest.mark.parametrize("name", NAMES)
def test_all_negative_logits_change_nothing(name: str) -> None:
    """Torchattacks' C&W fails there: it masks the label's logit by 0."""
    found, shifted = (
        climb(new(name, pictures(6), CLASSES, steps=40, stop=NEVER), model)
        for model in (MODEL, lambda x: MODEL(x) - 100)
    )
    assert found.fooled.all()
    assert shifted.fooled.all()
    one, other = (float(table.distance(table.best).mean()) for table in (found, shifted))
    assert other == pytest.approx(one, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_a_zero_gradient_makes_no_nan(name: str) -> None:
    table = climb(new(name, pictures(4), CLASSES, steps=5, stop=NEVER), lambda x: MODEL(x.round() + 0 * x))
    assert table.finite.all()
    for column in ("x", "best"):
        assert torch.isfinite(getattr(table, column)).all()
    assert (table.zero_gradients >= 5).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_that_the_model_gets_wrong_is_left_as_it_is(name: str) -> None:
    x0 = pictures(4)
    wrong = (MODEL(x0).argmax(1) + 1) % CLASSES
    table = climb(new(name, x0, CLASSES, steps=3, label=wrong), MODEL)
    assert table.already.all()
    assert torch.equal(table.best, x0)


@pytest.mark.parametrize("metric", [0, 1], ids=["l2", "linf"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_on_the_grid_is_hardly_farther(name: str, metric: int) -> None:
    """In L2 to a fiftieth of a pixel, in Linf to a grey level."""
    options: dict[str, Any] = {"metric": metric} if "metric" in ATTACKS[name].parameters() else {}
    if not options and metric == LINF:
        return
    x0 = pictures(6)
    found, gridded = (
        climb(new(name, x0, CLASSES, steps=40, stop=NEVER, on_grid=on_grid, **options), MODEL)
        for on_grid in (False, True)
    )
    assert torch.equal((gridded.best * 255).round() / 255, gridded.best)
    assert gridded.fooled.all()
    level = 1 / 255 if metric == LINF else 0.02
    assert (gridded.distance(gridded.best) <= 1.05 * found.distance(found.best) + level).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_finds_its_target(name: str) -> None:
    x0 = pictures(6)
    target = MODEL(x0).argsort(1, descending=True)[:, 2]
    table = climb(new(name, x0, CLASSES, steps=60, stop=NEVER, label=target, targeted=True), MODEL)
    assert table.fooled.all()
    assert torch.equal(MODEL(table.best).argmax(1), target)


def test_tries_of_fab_head_for_different_classes() -> None:
    x0 = pictures(4).repeat_interleave(3, 0)
    table = new("fab", x0, CLASSES, targets=3, restart=torch.arange(12) % 3, steps=40)
    climb(table, MODEL)
    ranks = MODEL(x0).argsort(1, descending=True)
    heads = ranks.gather(1, 1 + table.restart[:, None])[:, 0]
    label, targeted = table.aims()
    assert torch.equal(label, heads)
    assert targeted.all()
    assert (MODEL(table.best).argmax(1) == heads).float().mean() > 0.6  # others may lie on the way


def test_a_target_has_one_try() -> None:
    table = new("fab", pictures(2), CLASSES, targets=2, restart=torch.arange(2), label=3, targeted=True)
    table.begin()
    assert table.spent.tolist() == [False, True]


def test_deepfool_looks_at_as_many_rivals_as_there_are() -> None:
    table = new("deepfool", ((X + 5) / 10).view(1, 1, 2, 3), 2, rivals=50, steps=2)
    columns = {name: getattr(table, name) for name in table.columns()}
    assert type(table).looks(columns).tolist() == [100]
    climb(table, linear)
    assert table.fooled.all()
    assert int(table.best_t) == 1


async def test_the_search_of_cw_ends_early_row_by_row() -> None:
    """A row that makes no progress goes on to its next constant, and leaves before its looks are spent."""
    model, x0 = toy(), pictures(6)
    options: dict[str, Any] = {
        "binary_steps": 3,
        "steps": 100,
        "rate": 0.02,
        "initial_const": 1,
        "stop": NEVER,
    }
    with Engine({"toy": model}) as engine:
        found = [
            await engine.run(job(model, ATTACKS["cw"], images, "me", abort_early=abort, **options))
            for images, abort in ((x0, True), (x0, False), (x0[2:3], True))
        ]
    early, late, alone = ([answer for answer in answers if isinstance(answer, Forged)] for answers in found)
    assert all(answer.fooled and answer.ended is Ended.STEPS for answer in early + late + alone)
    assert all(answer.forward == 302 for answer in late)
    assert len({answer.forward for answer in early}) > 1
    assert sum(answer.forward for answer in early) < 0.8 * 6 * 302
    assert alone[0].forward == early[2].forward
    assert torch.equal(alone[0].image, early[2].image)
    loss = [sum(-answer.merit for answer in answers) for answers in (early, late)]
    assert loss[0] <= 1.2 * loss[1]


def test_a_row_sum_has_the_same_bits_in_any_batch() -> None:
    a, b = torch.randn(2, 5, 3, 7, 11, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(total(a.abs()), a.flatten(1).abs().sum(1))
    assert torch.allclose(dot(a, b), (a * b).flatten(1).sum(1), atol=1e-4)
    assert torch.equal(dot(a, b)[3:4], dot(a[3:4].clone(), b[3:4].clone()))


def test_a_projection_reaches_the_plane() -> None:
    """Whatever the weights: also some that are zero, and points in corners of the box."""
    generator = torch.Generator().manual_seed(0)
    p = torch.rand((64, 3, 8, 8), generator=generator).mul_(3).sub_(1).clamp_(0, 1)
    w = torch.randn(p.shape, generator=generator).pow_(5).mul_(torch.rand(p.shape, generator=generator) < 0.7)
    ends = [(w * ((w > 0) == up).float() - w * p).flatten(1).sum(1) for up in (False, True)]
    for share in (0.01, 0.3, 0.9):
        for linf in (False, True):
            for end in ends:
                missing = share * end
                d = project(p, w, missing, torch.full((64,), linf))
                assert ((w * d).flatten(1).sum(1) - missing).abs().max() <= 1e-4 * missing.abs().max()
