"""Each recipe's loss, against its paper's formula written out by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from iguana_server.attacks.base import NEVER
from iguana_server.attacks.pgd import PGD
from iguana_server.errors import InvalidArgument
from iguana_server.models import fashion_mnist as model
from iguana_server.models.ensemble import Ensemble
from iguana_server.training import fashion_mnist
from iguana_server.training.batch import Batch
from iguana_server.training.climb import climb
from iguana_server.training.evaluation import accuracy, robust_accuracy
from iguana_server.training.learner import Learner
from iguana_server.training.recipe import Recipe
from iguana_server.training.recipes.alp import ALP
from iguana_server.training.recipes.ensemble import Members
from iguana_server.training.recipes.fast import Fast
from iguana_server.training.recipes.free import Free
from iguana_server.training.recipes.offline import Offline
from iguana_server.training.recipes.online import Online
from iguana_server.training.recipes.standard import Standard
from iguana_server.training.recipes.trades import TRADES, divergence
from iguana_server.training.run import Run
from tests.attacks import alone


def learner(width: int = 4) -> Learner:
    """A network with weights and statistics of its own, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = model.net(width)
        for _ in range(5):
            net(torch.randn(32, 1, 28, 28))
    return Learner(net.train())


def descend(recipe: Recipe, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """The loss of one step, and its gradients."""
    one = learner()
    loss = recipe.loss(one, batch)
    return loss.detach(), list(torch.autograd.grad(loss, list(one.net.parameters())))


def test_twins_are_those_of_the_engines_attack(batch: Batch) -> None:
    one = learner()
    table = PGD.new(
        batch.x,
        classes=10,
        label=batch.label,
        epsilon=0.1,
        steps=4,
        random_start=1,
        seed=batch.seed,
        sample=batch.rows,
        restart=batch.epoch,
        stop=NEVER,
    )
    alone.climb(table, one.frozen())
    twins = Online(steps=4).twins(one, batch)
    assert torch.equal(twins, table.x)
    assert float((twins - batch.x).abs().max()) == pytest.approx(0.1)


def test_twins_of_a_picture_do_not_depend_on_its_batch(batch: Batch) -> None:
    one, rows = learner(), torch.tensor([5, 2])
    few = Batch(batch.x[rows], batch.label[rows], batch.rows[rows], batch.seed, batch.epoch)
    for recipe in (Online(steps=3), TRADES(steps=3)):
        torch.testing.assert_close(recipe.twins(one, few), recipe.twins(one, batch)[rows], rtol=0, atol=1e-6)


def test_online_is_the_summed_loss_of_the_lecture(batch: Batch) -> None:
    recipe = Online(steps=2)
    one = learner()
    z = one(torch.cat([batch.x, recipe.twins(one, batch)]))
    want = F.cross_entropy(z[:16], batch.label) + F.cross_entropy(z[16:], batch.label)
    assert torch.equal(descend(recipe, batch)[0], want.detach())


def test_online_without_the_clean_loss_is_the_saddle_point(batch: Batch) -> None:
    recipe = Online(steps=2, clean=0.0)
    one = learner()
    want = F.cross_entropy(one(recipe.twins(one, batch)), batch.label)
    assert torch.equal(descend(recipe, batch)[0], want.detach())


def test_pairing_by_zero_is_online(batch: Batch) -> None:
    loss, gradients = descend(ALP(pairing=0.0, steps=3), batch)
    want, wanted = descend(Online(steps=3), batch)
    assert torch.equal(loss, want)
    assert all(torch.equal(a, b) for a, b in zip(gradients, wanted, strict=True))


def test_pairing_is_the_mean_square_of_the_logits_difference(batch: Batch) -> None:
    one, recipe = learner(), Online(steps=3)
    z = one(torch.cat([batch.x, recipe.twins(one, batch)])).detach()
    want = 0.7 * ((z[:16] - z[16:]) ** 2).mean()
    got = descend(ALP(pairing=0.7, steps=3), batch)[0] - descend(recipe, batch)[0]
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_divergence_is_that_of_torch() -> None:
    p, q = torch.randn(2, 9, 10).mul(4)
    want = F.kl_div(q.log_softmax(1), p.softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(divergence(p, q), want)
    assert float(divergence(p, p).abs().max()) == 0


def test_trades_is_its_papers_loss_with_its_papers_attack(batch: Batch) -> None:
    recipe = TRADES(steps=4, beta=3.0, epsilon=0.1)
    one = learner()
    frozen = one.frozen()
    twins = recipe.twins(one, batch)
    assert float((twins - batch.x).abs().max()) <= 0.1 + 1e-6
    before, after = frozen(batch.x), frozen(twins)
    noisy = frozen((batch.x + 0.1 * torch.randn_like(batch.x).sign()).clamp(0, 1))
    assert (divergence(before, after) > 2 * divergence(before, noisy)).all()
    z = one(torch.cat([batch.x, twins]))
    kl = F.kl_div(z[16:].log_softmax(1), z[:16].softmax(1), reduction="batchmean")
    want = F.cross_entropy(z[:16], batch.label) + 3.0 * kl
    torch.testing.assert_close(descend(recipe, batch)[0], want.detach())


def test_fast_takes_one_step_from_a_point_of_the_ball(batch: Batch) -> None:
    recipe, one = Fast(epsilon=0.1), learner()
    start = recipe.table(batch, steps=1)
    start.begin()
    x = start.x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(one.frozen()(x), batch.label, reduction="sum"), x)
    delta = (start.x - batch.x + 0.125 * grad.sign()).clamp(-0.1, 0.1)
    twins = (batch.x + delta).clamp(0, 1)
    got = descend(recipe, batch)[0]
    torch.testing.assert_close(got, F.cross_entropy(one(twins), batch.label).detach(), rtol=1e-4, atol=1e-5)


def test_free_is_the_algorithm_of_its_paper(batch: Batch) -> None:
    """Two batches of two replays, beside a plain loop: delta is kept from batch to batch."""
    halves = [
        Batch(batch.x[half], batch.label[half], batch.rows[half], 0, 0)
        for half in (slice(0, 8), slice(8, 16))
    ]
    one, other = learner(), learner()
    optimizers = [torch.optim.SGD(each.net.parameters(), lr=0.01) for each in (one, other)]
    for loss in Free(replay=2, epsilon=0.1).losses(one, halves):
        optimizers[0].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizers[0].step()
    delta = torch.zeros_like(halves[0].x)
    for half in halves:
        for _ in range(2):
            x = (half.x + delta).clamp(0, 1).requires_grad_()
            optimizers[1].zero_grad()
            F.cross_entropy(other(x), half.label).backward()  # type: ignore[no-untyped-call]
            optimizers[1].step()
            assert x.grad is not None
            delta = (x.detach() - half.x + 0.1 * x.grad.sign()).clamp(-0.1, 0.1)
            delta = (half.x + delta).clamp(0, 1) - half.x
    for a, b in zip(one.net.parameters(), other.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_offline_adds_a_forged_twin_of_each_picture(folder: Path) -> None:
    images, labels = fashion_mnist.load(folder, "train")
    victim = learner().frozen()
    more, doubled = Offline(epsilon=0.1, steps=5).pictures(victim, images, labels, seed=1)
    n = len(images)
    assert torch.equal(more[:n], images)
    assert torch.equal(doubled, torch.cat([labels, labels]))
    change = (more[n:].int() - images.int()).abs()
    assert 0 < int(change.max()) <= int(0.1 * 255)
    loss = [F.cross_entropy(victim(x.float() / 255), labels) for x in (images, more[n:])]
    assert float(loss[1]) > float(loss[0]) + 0.1  # noise of that size: + 0.00


def test_offline_wants_a_model_to_attack(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"^start: want weights for offline to attack, got none"):
        Run(folder, tmp_path, Offline(), 0)


def test_members_are_trained_as_if_alone(batch: Batch) -> None:
    recipe = Members(members=3, width=4)
    together = Learner(recipe.net())
    members = [Learner(copy.deepcopy(net)) for net in together.net.get_submodule("members").children()]
    recipe.loss(together, batch).backward()  # type: ignore[no-untyped-call]
    for i, member in enumerate(members):
        F.cross_entropy(member(batch.x), batch.label).backward()  # type: ignore[no-untyped-call]
        own = together.net.get_submodule(f"members.{i}")
        for a, b in zip(own.parameters(), member.net.parameters(), strict=True):
            assert a.grad is not None
            assert b.grad is not None
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)
    assert isinstance(together.net, Ensemble)
    assert not torch.equal(members[0].net.get_parameter("0.weight"), members[1].net.get_parameter("0.weight"))


@pytest.mark.parametrize("recipe", [Online(steps=3), Fast(), TRADES(steps=3), ALP(steps=3)])
def test_batchnorm_does_not_learn_from_the_attacks_looks(recipe: Recipe, batch: Batch) -> None:
    one = learner()
    norm = next(layer for layer in one.net.modules() if isinstance(layer, nn.BatchNorm2d))
    assert norm.num_batches_tracked is not None
    before = int(norm.num_batches_tracked)
    recipe.loss(one, batch)
    assert int(norm.num_batches_tracked) == before + 1
    assert one.net.training


def test_robust_accuracy_counts_what_the_engines_pgd_leaves(folder: Path) -> None:
    images, labels = fashion_mnist.load(folder, "t10k")
    frozen = learner().frozen()
    table = PGD.new(
        images.float() / 255,
        classes=10,
        label=labels,
        epsilon=0.02,
        steps=20,
        random_start=1,
        stop=NEVER,
        sample=torch.arange(64),
    )
    alone.climb(table, frozen)
    assert robust_accuracy(frozen, images, labels, 0.02) == 1 - int(table.fooled.sum()) / 64
    assert robust_accuracy(frozen, images, labels, 0.0, steps=1) == accuracy(frozen, images, labels)


def test_unjudged_climb_ends_where_the_judged_one_does(batch: Batch) -> None:
    frozen = learner().frozen()
    tables = [Online().table(batch, steps=3) for _ in range(2)]
    tables[1].stop.fill_(NEVER)
    ends = [climb(frozen, table, judge=judge) for table, judge in zip(tables, (False, True), strict=True)]
    assert torch.equal(*ends)


def test_adversarial_training_makes_robust(folder: Path, tmp_path: Path) -> None:
    """At a radius where training on clean pictures leaves little."""
    common: dict[str, Any] = {"batch": 32, "peak": 0.02, "shift": 0, "width": 8}
    test = fashion_mnist.load(folder, "t10k")
    robust = {}
    for recipe in (
        Standard(epochs=12, **common),
        Online(epochs=12, epsilon=0.25, steps=3, **common),
        Fast(epochs=12, epsilon=0.25, **common),
    ):
        run = Run(folder, tmp_path / recipe.name, recipe, 0)
        for _ in run.epochs():
            pass
        robust[recipe.name] = robust_accuracy(run.learner.frozen(), *test, 0.25)
    assert robust["online"] > robust["standard"] + 0.3, robust
    assert robust["fast"] > robust["standard"] + 0.3, robust
