"""The minimum-norm attacks beside the libraries, on one toy: equal where one formula can be had, else as near."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iguana_server.attacks.base import NEVER
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.attacks.fab import FAB, project
from iguana_server.attacks.minimumnorm import L2, LINF, MinimumNorm
from tests.attacks.alone import climb

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they are years old
    import foolbox
    import torchattacks
    from torchattacks.attacks.fab import projection_l2, projection_linf

pytestmark = pytest.mark.filterwarnings("ignore")
ROWS, CLASSES = 48, 5
Victim = tuple[nn.Module, Tensor, Tensor]  # net, images, labels


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    """As the libraries' own order of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def victim() -> Victim:
    """A random net on random pictures, whose predictions are the labels."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(200, CLASSES),
    ).eval()
    x = torch.rand(ROWS, 3, 12, 12)
    return net, x, net(x).argmax(1)


def ours(
    attack: str | type[MinimumNorm], victim: Victim, *, target: Tensor | None = None, **columns: Any
) -> MinimumNorm:
    net, x, y = victim
    cls = ATTACKS[attack] if isinstance(attack, str) else attack
    table = cls.new(
        x,
        classes=CLASSES,
        label=y if target is None else target,
        targeted=target is not None,
        stop=NEVER,
        **columns,
    )
    assert isinstance(table, MinimumNorm)
    climb(table, net)
    assert table.fooled.all()
    return table


def foolbox_of(attack: Any, victim: Victim, target: Tensor | None = None) -> Tensor:
    net, x, y = victim
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    goal = y if target is None else foolbox.criteria.TargetedMisclassification(target)
    return torch.as_tensor(attack(model, x, goal, epsilons=None)[0])


@pytest.fixture(params=[False, True], ids=["untargeted", "targeted"])
def target(request: pytest.FixtureRequest, victim: Victim) -> Tensor | None:
    return (victim[2] + 1) % CLASSES if request.param else None


def same_but_for_the_last_look(table: MinimumNorm, theirs: Tensor, within: float) -> None:
    """The libraries do not look at what their last move makes: there, ours is nearer."""
    equal = table.best_t < table.steps
    assert equal.float().mean() > 0.5
    assert (table.best - theirs)[equal].abs().max() <= within
    assert (table.distance(table.best) <= table.distance(theirs) + 1e-6).all()


def test_ddn_equals_foolbox(victim: Victim, target: Tensor | None) -> None:
    theirs = foolbox_of(foolbox.attacks.DDNAttack(steps=40), victim, target)
    same_but_for_the_last_look(ours("ddn", victim, target=target, steps=40), theirs, 2e-7)


@pytest.mark.parametrize("confidence", [0.0, 0.2])
def test_cw_equals_foolbox(confidence: float, victim: Victim, target: Tensor | None) -> None:
    """Without its early stop, which looks at the whole batch."""
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=6,
        steps=30,
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
        binary_steps=6,
        steps=30,
        rate=0.05,
        initial_const=0.1,
        confidence=confidence,
        abort_early=False,
    )
    done = theirs.flatten(1).any(1)  # foolbox answers black where it found nothing
    assert done.float().mean() > 0.5
    assert (table.best - theirs)[done].abs().max() <= 1e-5
    assert torch.equal(table.margin >= confidence, done)


def test_cw_repeats_its_best_search_like_foolbox(victim: Victim) -> None:
    options: dict[str, Any] = {"steps": 10, "initial_const": 1.0, "abort_early": False}
    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=10, stepsize=0.1, **options)
    theirs = foolbox_of(attack, victim)
    table = ours("cw", victim, binary_steps=10, rate=0.1, **options)
    assert (table.best - theirs).abs().max() <= 1e-5


class Mended(foolbox.attacks.L2FMNAttack):  # type: ignore[misc]  # untyped
    """Foolbox's, whose ball never binds: it divides norms by norms."""

    def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
        d = x - x0
        norms = d.flatten(start=1).norms.l2(axis=-1).maximum(1e-12)
        return x0 + d * (epsilon / norms).minimum(1).reshape((-1, 1, 1, 1))


@pytest.mark.parametrize(
    ("metric", "library"), [(LINF, foolbox.attacks.LInfFMNAttack), (L2, Mended)], ids=["linf", "l2"]
)
def test_fmn_equals_foolbox(metric: int, library: Any, victim: Victim, target: Tensor | None) -> None:
    """But for rows that it leaves an ulp short of the boundary, and those in which an ulp decides."""
    net, _, y = victim
    theirs = foolbox_of(library(steps=40), victim, target)
    table = ours("fmn", victim, target=target, steps=40, metric=metric)
    seen = net(theirs).argmax(1)
    fools = seen != y if target is None else seen == target
    equal = (table.best_t < 40) & fools
    assert equal.float().mean() > 0.3
    same = (table.best - theirs)[equal].abs().amax((1, 2, 3)) <= 2e-6
    assert same.float().mean() >= 0.9
    assert (table.distance(table.best) <= 1.01 * table.distance(theirs))[fools].all()


@pytest.mark.parametrize("candidates", [2, CLASSES])
def test_deepfool_equals_foolbox(candidates: int, victim: Victim) -> None:
    attack = foolbox.attacks.L2DeepFoolAttack(steps=30, candidates=candidates, loss="logits")
    theirs = foolbox_of(attack, victim)
    table = ours("deepfool", victim, steps=30, rivals=candidates - 1)
    assert (table.best - theirs).abs().max() <= 1e-6


class Plain(FAB):
    """FAB that judges where the library does: not after going back."""

    name = "plain"

    def judged(self) -> Tensor:
        return ~self.back


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(("metric", "norm"), [(L2, "L2"), (LINF, "Linf")])
def test_fab_equals_torchattacks(metric: int, norm: str, rank: int, victim: Victim) -> None:
    net, x, y = victim
    theirs = torchattacks.FAB(net, norm=norm, steps=30, multi_targeted=True, n_classes=CLASSES)
    theirs.target_class = rank + 2
    best = theirs.attack_single_run_targeted(x, y)
    options: dict[str, Any] = {"metric": metric, "steps": 30, "targets": 4, "restart": rank}
    plain = ours(Plain, victim, **options)
    near = (plain.best - best).abs().amax((1, 2, 3)) <= 1e-5
    assert (
        near.float().mean() >= 0.8
    )  # a third class in between: the margin looks at it, the library does not
    found = ours("fab", victim, **options)
    assert found.distance(found.best).mean() <= 1.001 * found.distance(best).mean()
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


def test_order_of_strength_is_that_of_the_papers(victim: Victim) -> None:
    """Means within 3 % of each other, but for DeepFool, which stops at the first point that fools."""
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
