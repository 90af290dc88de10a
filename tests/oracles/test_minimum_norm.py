"""The minimum-norm attacks beside the libraries, equal where one formula can be had, else as near."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server.attacks.base import NEVER
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.attacks.fab import FAB, project
from iguana_server.attacks.fmn import FMN
from iguana_server.attacks.minimumnorm import L2, LINF, MinimumNorm
from tests.attacks.alone import climb
from tests.oracles.agreement import Agreement, apart
from tests.oracles.victim import VICTIMS, Victim

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they are years old
    import foolbox
    import torchattacks
    from torchattacks.attacks.fab import projection_l2, projection_linf

pytestmark = pytest.mark.filterwarnings("ignore")


def ours(
    attack: str | type[MinimumNorm],
    victim: Victim,
    *,
    target: Tensor | None = None,
    last: bool = True,
    **columns: Any,
) -> MinimumNorm:
    """Moved to its end; the libraries do not look at what their last move makes: last=False."""
    cls = ATTACKS[attack] if isinstance(attack, str) else attack
    table = cls.new(
        victim.images,
        classes=victim.classes,
        label=victim.labels if target is None else target,
        targeted=target is not None,
        stop=NEVER,
        **columns,
    )
    assert isinstance(table, MinimumNorm)
    return climb(table, victim.net, last=last)


def foolbox_of(attack: Any, victim: Victim, target: Tensor | None = None) -> Tensor:
    model = foolbox.PyTorchModel(victim.net.eval(), bounds=(0, 1), device="cpu")
    goal = victim.labels if target is None else foolbox.criteria.TargetedMisclassification(target)
    return torch.as_tensor(attack(model, victim.images, goal, epsilons=None)[0])


@pytest.fixture(params=[False, True], ids=["untargeted", "targeted"])
def target(request: pytest.FixtureRequest, victim: Victim) -> Tensor | None:
    return (victim.labels + 1) % victim.classes if request.param else None


def fooling(victim: Victim, target: Tensor | None, images: Tensor) -> Tensor:
    """[n] bool: the goal is reached."""
    seen: Tensor = victim.net(images).argmax(1)
    return seen != victim.labels if target is None else seen == target


def nearly_all_equal(
    attack: str,
    victim: Victim,
    table: MinimumNorm,
    theirs: Tensor,
    fools: Tensor,
    within: float,
    agreement: Agreement,
) -> None:
    """Those that fool, but for rows in which an ulp decides whether a point does; there, as near.

    On EfficientNet-Lite0 an ulp grows by every look until pictures are others: there, as near in the mean.
    """
    if victim.ulps:
        ours, their = (table.distance(images)[fools].mean() for images in (table.best, theirs))
        agreement.note(attack, victim.name, ratio=float(ours / their))
        assert ours <= 1.05 * their
        return
    difference = (table.best - theirs)[fools].abs().amax((1, 2, 3))
    same = difference <= within
    agreement.note(
        attack, victim.name, difference=float(difference[same].max()), rows=float(same.float().mean())
    )
    assert (~same).sum() <= max(2, 0.1 * len(same))
    assert (table.distance(table.best) <= 1.01 * table.distance(theirs))[fools].all()


def test_ddn_equals_foolbox(victim: Victim, target: Tensor | None, agreement: Agreement) -> None:
    steps = 4 * victim.steps
    theirs = foolbox_of(foolbox.attacks.DDNAttack(steps=steps), victim, target)
    table = ours("ddn", victim, target=target, steps=steps, last=False)
    fools = fooling(victim, target, theirs)
    assert fools.float().mean() > 0.5
    assert torch.equal(table.fooled, fools)
    nearly_all_equal("ddn", victim, table, theirs, fools, 3e-7, agreement)


@pytest.mark.suite("toy")
@pytest.mark.parametrize("confidence", [0.0, 0.2])
def test_cw_equals_foolbox(
    confidence: float, victim: Victim, target: Tensor | None, agreement: Agreement
) -> None:
    """Without its early stop, which looks at the whole batch."""
    searches, steps = (6, 30) if victim.steps == 10 else (3, 8)
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=searches,
        steps=steps,
        stepsize=0.05,
        initial_const=0.1,
        confidence=confidence,
        abort_early=False,
    )
    theirs = foolbox_of(attack, victim, target)
    table = ours(
        "cw",
        victim,
        target=target,
        binary_steps=searches,
        steps=steps,
        rate=0.05,
        initial_const=0.1,
        confidence=confidence,
        abort_early=False,
    )
    done = theirs.flatten(1).any(1)  # foolbox answers black where it found nothing
    assert done.float().mean() > 0.5
    nearly_all_equal("cw", victim, table, theirs, done, 1e-5, agreement)
    assert victim.ulps or torch.equal(table.margin >= confidence, done)


@pytest.mark.parametrize("victim", ["toy"], indirect=True)
def test_cw_repeats_its_best_search_like_foolbox(victim: Victim, agreement: Agreement) -> None:
    options: dict[str, Any] = {"steps": victim.steps, "initial_const": 1.0, "abort_early": False}
    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=10, stepsize=0.1, **options)
    theirs = foolbox_of(attack, victim)
    table = ours("cw", victim, binary_steps=10, rate=0.1, **options)
    agreement.note("cw", victim.name, difference=apart(table.best, theirs))
    assert apart(table.best, theirs) <= 1e-5


class Mended(foolbox.attacks.L2FMNAttack):  # type: ignore[misc]  # untyped
    """Foolbox's, whose ball never binds: it divides norms by norms."""

    def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
        d = x - x0
        norms = d.flatten(start=1).norms.l2(axis=-1).maximum(1e-12)
        return x0 + d * (epsilon / norms).minimum(1).reshape((-1, 1, 1, 1))


@pytest.mark.parametrize(
    ("metric", "library"), [(LINF, foolbox.attacks.LInfFMNAttack), (L2, Mended)], ids=["linf", "l2"]
)
def test_fmn_equals_foolbox(
    metric: int, library: Any, victim: Victim, target: Tensor | None, agreement: Agreement
) -> None:
    """But for rows that it leaves an ulp short of the boundary, and those in which an ulp decides.

    And those whose estimates are refuted (see FMN), which come nearer.
    """
    steps = 4 * victim.steps
    theirs = foolbox_of(library(steps=steps), victim, target)
    table = ours("fmn", victim, target=target, steps=steps, metric=metric, last=False)
    fools = fooling(victim, target, theirs)
    assert fools.any()
    assert isinstance(table, FMN)
    assert table.fooled[fools].all()
    nearer = table.refuted & (table.distance(table.best) < table.distance(theirs))
    assert (fools & ~nearer).any()
    nearly_all_equal("fmn", victim, table, theirs, fools & ~nearer, 2e-6, agreement)


@pytest.mark.parametrize("candidates", [2, pytest.param(5, marks=pytest.mark.suite("toy"))])
def test_deepfool_equals_foolbox(candidates: int, victim: Victim, agreement: Agreement) -> None:
    steps = 3 * victim.steps
    attack = foolbox.attacks.L2DeepFoolAttack(steps=steps, candidates=candidates, loss="logits")
    theirs = foolbox_of(attack, victim)
    table = ours("deepfool", victim, steps=steps, rivals=candidates - 1)
    agreement.note("deepfool", victim.name, difference=apart(table.best, theirs))
    assert table.fooled.any()
    assert apart(table.best, theirs) <= (1e-5 if victim.ulps else 1e-6)


class Plain(FAB):
    """FAB that judges where the library does: not after going back."""

    name = "plain"

    def judged(self) -> Tensor:
        return ~self.back


@pytest.mark.parametrize("rank", [0, pytest.param(2, marks=pytest.mark.suite("toy"))])
@pytest.mark.parametrize(("metric", "norm"), [(L2, "L2"), (LINF, "Linf")])
def test_fab_equals_torchattacks(
    metric: int, norm: str, rank: int, victim: Victim, agreement: Agreement
) -> None:
    steps = 3 * victim.steps
    theirs = torchattacks.FAB(
        victim.net, norm=norm, steps=steps, multi_targeted=True, n_classes=victim.classes
    )
    theirs.target_class = rank + 2
    best = theirs.attack_single_run_targeted(victim.images, victim.labels)
    options: dict[str, Any] = {"metric": metric, "steps": steps, "targets": 4, "restart": rank}
    plain = ours(Plain, victim, **options)
    difference = (plain.best - best).abs().amax((1, 2, 3))
    near = difference <= (1e-3 if victim.ulps else 1e-5)
    agreement.note(
        f"fab, {['nearest', 'second', 'third'][rank]} class",
        victim.name,
        difference=float(difference[near].max()),
        rows=float(near.float().mean()),
    )
    # Another class in between: the margin looks at it, the library does not.
    assert near.float().mean() >= (0.7 if rank == 0 else 0.5)
    found = ours("fab", victim, **options)
    worse = 1.001 if victim.name == "toy" else 1.02
    assert found.distance(found.best).mean() <= worse * found.distance(best).mean()
    assert (found.distance(found.best) <= plain.distance(plain.best) + 1e-7).all()


@pytest.mark.parametrize("linf", [False, True], ids=["l2", "linf"])
@pytest.mark.parametrize("missing", [-30.0, -3.0, -0.1, 0.1, 3.0, 30.0])
def test_projection_equals_torchattacks(missing: float, linf: bool) -> None:
    """Planes near and far, and beyond the box."""
    generator = torch.Generator().manual_seed(1)
    p = torch.rand((32, 3, 12, 12), generator=generator).round(decimals=1)
    w = torch.randn(p.shape, generator=generator)
    d = project(p, w, torch.full((32,), missing), torch.full((32,), linf))
    b = (w * p).flatten(1).sum(1) + missing
    theirs = (projection_linf if linf else projection_l2)(p.flatten(1), w.flatten(1), b)
    assert (d.flatten(1) - theirs).abs().max() <= 2e-5
    assert 0 <= (p + d).min() <= (p + d).max() <= 1


def test_order_of_strength_is_that_of_the_papers() -> None:
    """Means within 3 % of each other, but for DeepFool, which stops at the first point that fools."""
    victim = VICTIMS["toy"]().first(24)
    mean = {
        name: float(table.distance(table.best).mean())
        for name, table in (
            ("ddn", ours("ddn", victim, loss_name="margin")),  # cross-entropy heads for all classes at once
            ("fmn", ours("fmn", victim)),
            ("cw", ours("cw", victim, rate=0.02)),
            ("fab", ours("fab", victim, metric=L2)),
            ("deepfool", ours("deepfool", victim)),
        )
    }
    least = min(mean.values())
    assert all(value <= 1.03 * least for name, value in mean.items() if name != "deepfool"), mean
    assert mean["deepfool"] == max(mean.values()), mean
