"""Bit for bit what the attack libraries answer, where one formula can be had in one order."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from iguana_server.attacks.base import NEVER, Attack
from iguana_server.attacks.catalog import ATTACKS
from tests.attacks.alone import climb, look

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they are years old
    import foolbox
    import torchattacks
    from art.attacks.evasion import (
        FastGradientMethod,
        MomentumIterativeMethod,
        ProjectedGradientDescentPyTorch,
    )
    from art.estimators.classification import PyTorchClassifier
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

pytestmark = pytest.mark.filterwarnings("ignore")
EPSILON, ALPHA, STEPS = 8 / 255, 2 / 255, 10
Victim = tuple[nn.Module, Tensor, Tensor, int]  # net, images, labels, classes


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    """As the libraries' own order of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def victim() -> Victim:
    """A random net on 64 random pictures."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(200, 5),
    ).eval()
    x = torch.rand(64, 3, 12, 12)
    return net, x, net(x).argmax(1), 5


def ours(
    name: str, victim: Victim, label: Tensor | None = None, *, loss_name: str | None = None, **columns: Any
) -> Attack:
    net, x, y, classes = victim
    label = y if label is None else label
    return climb(
        ATTACKS[name].new(
            x, classes=classes, loss_name=loss_name, label=label, stop=NEVER, keep_last=True, **columns
        ),
        net,
    )


def _torchattacks(name: str, targeted: bool, net: nn.Module, x: Tensor, y: Tensor, **options: Any) -> Tensor:
    attack = getattr(torchattacks, name)(net, **options)
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return torch.as_tensor(attack(x, y))


def _foolbox(attack: Any, targeted: bool, net: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    goal = foolbox.criteria.TargetedMisclassification(y) if targeted else y
    return torch.as_tensor(attack(model, x, goal, epsilons=epsilon)[0])


def _art(
    attack: Callable[..., Any], net: nn.Module, x: Tensor, y: Tensor, classes: int, **options: Any
) -> Tensor:
    classifier = PyTorchClassifier(
        net,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=classes,
        clip_values=(0, 1),
        device_type="cpu",
    )
    made = attack(classifier, batch_size=len(x), **options).generate(
        x=x.numpy(), y=np.eye(classes)[y.numpy()]
    )
    return torch.from_numpy(made)


LIBRARIES: dict[tuple[str, str], Callable[[bool, nn.Module, Tensor, Tensor, int], Tensor]] = {
    ("fgsm", "torchattacks"): lambda t, m, x, y, _: _torchattacks("FGSM", t, m, x, y, eps=EPSILON),
    ("fgsm", "foolbox"): lambda t, m, x, y, _: _foolbox(
        foolbox.attacks.LinfFastGradientAttack(random_start=False), t, m, x, y, EPSILON
    ),
    ("fgsm", "art"): lambda t, m, x, y, k: _art(FastGradientMethod, m, x, y, k, eps=EPSILON, targeted=t),
    ("fgsm", "cleverhans"): lambda t, m, x, y, _: fast_gradient_method(
        m, x, EPSILON, np.inf, clip_min=0, clip_max=1, y=y, targeted=t
    ),
    ("pgd", "torchattacks"): lambda t, m, x, y, _: _torchattacks(
        "PGD", t, m, x, y, eps=EPSILON, alpha=ALPHA, steps=STEPS, random_start=False
    ),
    ("pgd", "foolbox"): lambda t, m, x, y, _: _foolbox(
        foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=STEPS, random_start=False), t, m, x, y, EPSILON
    ),
    ("pgd", "art"): lambda t, m, x, y, k: _art(
        ProjectedGradientDescentPyTorch,
        m,
        x,
        y,
        k,
        eps=EPSILON,
        eps_step=ALPHA,
        max_iter=STEPS,
        num_random_init=0,
        targeted=t,
        verbose=False,
    ),
    ("pgd", "cleverhans"): lambda t, m, x, y, _: projected_gradient_descent(
        m,
        x,
        EPSILON,
        ALPHA,
        STEPS,
        np.inf,
        clip_min=0,
        clip_max=1,
        y=y,
        targeted=t,
        rand_init=False,
        sanity_checks=False,
    ),
    ("mifgsm", "torchattacks"): lambda t, m, x, y, _: _torchattacks(
        "MIFGSM", t, m, x, y, eps=EPSILON, alpha=ALPHA, steps=STEPS
    ),
    ("mifgsm", "art"): lambda t, m, x, y, k: _art(
        MomentumIterativeMethod,
        m,
        x,
        y,
        k,
        eps=EPSILON,
        eps_step=ALPHA,
        max_iter=STEPS,
        decay=1.0,
        targeted=t,
        verbose=False,
    ),
    ("nifgsm", "torchattacks"): lambda t, m, x, y, _: _torchattacks(
        "NIFGSM", t, m, x, y, eps=EPSILON, alpha=ALPHA, steps=STEPS
    ),
}


CASES = [(case, targeted) for case in LIBRARIES for targeted in (False, True)]
CASES.remove((("fgsm", "foolbox"), True))  # foolbox has no targeted FGSM


@pytest.mark.parametrize(
    ("case", "targeted"),
    CASES,
    ids=lambda v: " as ".join(v) if isinstance(v, tuple) else "targeted" if v else "untargeted",
)
def test_linf_attacks_equal_the_library_bit_for_bit(
    case: tuple[str, str], targeted: bool, victim: Victim
) -> None:
    net, x, y, classes = victim
    label = (y + 1) % classes if targeted else y
    options: dict[str, Any] = {"epsilon": EPSILON, "alpha": ALPHA, "steps": STEPS, "decay": 1.0}
    known = {k: v for k, v in options.items() if k in ATTACKS[case[0]].parameters()}
    found = ours(case[0], victim, label, targeted=targeted, **known).x
    theirs = LIBRARIES[case](targeted, net, x, label, classes).detach()
    assert torch.equal(found, theirs), (found - theirs).abs().max()
    assert not torch.equal(found, x)


@pytest.mark.parametrize(("epsilon", "alpha"), [(0.5, 0.1), (2.0, 0.5)])
def test_pgd_l2_equals_foolbox_within_1e_6(epsilon: float, alpha: float, victim: Victim) -> None:
    net, x, y, _ = victim
    theirs = _foolbox(
        foolbox.attacks.L2PGD(abs_stepsize=alpha, steps=STEPS, random_start=False), False, net, x, y, epsilon
    )
    found = ours("pgdl2", victim, epsilon=epsilon, alpha=alpha, steps=STEPS).x
    assert (found - theirs).abs().max() <= 1e-6
    assert not torch.equal(found, x)


@pytest.mark.parametrize("steps", [10, 40, 100])
@pytest.mark.parametrize("epsilon", [8 / 255, 20 / 255, 40 / 255])
@pytest.mark.parametrize(("loss", "loss_name"), [("ce", "cross_entropy"), ("dlr", "dlr")])
def test_apgd_equals_torchattacks_bit_for_bit_from_the_same_start(
    loss: str, loss_name: str, epsilon: float, steps: int, victim: Victim
) -> None:
    """Its best point, the loss there, and the last point that fools."""
    net, x, y, classes = victim
    theirs = torchattacks.APGD(net, eps=epsilon, steps=steps, loss=loss)
    torch.manual_seed(7)
    x_top, _, loss_top, x_fooled = theirs.attack_single_run(x, y)
    torch.manual_seed(7)
    u = 2 * torch.rand(x.shape) - 1
    start = (x + epsilon * torch.ones(len(x), 1, 1, 1) * u / u.abs().amax((1, 2, 3), keepdim=True)).clamp(
        0, 1
    )
    table = ATTACKS["apgd"].new(
        x,
        classes=classes,
        loss_name=loss_name,
        label=y,
        stop=NEVER,
        keep_last=True,
        epsilon=epsilon,
        steps=steps,
        random_start=False,
    )
    table.x.copy_(start)
    last = climb(table, net).x.clone()
    fools = table.fooled.clone()
    table.step(*look(table, net, table.x))  # notes the last point; the move after it is not looked at
    columns = table.columns()
    assert {"x_top", "loss_top"} <= set(columns)
    assert torch.equal(table.x_top, x_top)  # type: ignore[attr-defined]  # APGD's own
    assert torch.equal(table.loss_top, loss_top)  # type: ignore[attr-defined]
    assert torch.equal(last[fools], x_fooled[fools])
    assert fools.any()
