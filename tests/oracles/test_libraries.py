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
from tests.oracles.agreement import Agreement, apart, differing
from tests.oracles.victim import VICTIMS, Victim

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
EPSILON, ALPHA = 8 / 255, 2 / 255


def ours(
    name: str, victim: Victim, label: Tensor | None = None, *, loss_name: str | None = None, **columns: Any
) -> Attack:
    table = ATTACKS[name].new(
        victim.images,
        classes=victim.classes,
        loss_name=loss_name,
        label=victim.labels if label is None else label,
        stop=NEVER,
        keep_last=True,
        **columns,
    )
    return climb(table, victim.net)


def _torchattacks(name: str, targeted: bool, v: Victim, y: Tensor, **options: Any) -> Tensor:
    attack = getattr(torchattacks, name)(v.net, **options)
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return torch.as_tensor(attack(v.images, y))


def _foolbox(attack: Any, targeted: bool, v: Victim, y: Tensor, epsilon: float) -> Tensor:
    model = foolbox.PyTorchModel(v.net, bounds=(0, 1), device="cpu")
    goal = foolbox.criteria.TargetedMisclassification(y) if targeted else y
    return torch.as_tensor(attack(model, v.images, goal, epsilons=epsilon)[0])


def _art(attack: Callable[..., Any], v: Victim, y: Tensor, **options: Any) -> Tensor:
    classifier = PyTorchClassifier(
        v.net,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(v.images.shape[1:]),
        nb_classes=v.classes,
        clip_values=(0, 1),
        device_type="cpu",
    )
    made = attack(classifier, batch_size=len(y), **options).generate(
        x=v.images.numpy(), y=np.eye(v.classes)[y.numpy()]
    )
    return torch.from_numpy(made)


LIBRARIES: dict[tuple[str, str], Callable[[bool, Victim, Tensor], Tensor]] = {
    ("fgsm", "torchattacks"): lambda t, v, y: _torchattacks("FGSM", t, v, y, eps=EPSILON),
    ("fgsm", "foolbox"): lambda t, v, y: _foolbox(
        foolbox.attacks.LinfFastGradientAttack(random_start=False), t, v, y, EPSILON
    ),
    ("fgsm", "art"): lambda t, v, y: _art(FastGradientMethod, v, y, eps=EPSILON, targeted=t),
    ("fgsm", "cleverhans"): lambda t, v, y: fast_gradient_method(
        v.net, v.images, EPSILON, np.inf, clip_min=0, clip_max=1, y=y, targeted=t
    ),
    ("pgd", "torchattacks"): lambda t, v, y: _torchattacks(
        "PGD", t, v, y, eps=EPSILON, alpha=ALPHA, steps=v.steps, random_start=False
    ),
    ("pgd", "foolbox"): lambda t, v, y: _foolbox(
        foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=v.steps, random_start=False), t, v, y, EPSILON
    ),
    ("pgd", "art"): lambda t, v, y: _art(
        ProjectedGradientDescentPyTorch,
        v,
        y,
        eps=EPSILON,
        eps_step=ALPHA,
        max_iter=v.steps,
        num_random_init=0,
        targeted=t,
        verbose=False,
    ),
    ("pgd", "cleverhans"): lambda t, v, y: projected_gradient_descent(
        v.net,
        v.images,
        EPSILON,
        ALPHA,
        v.steps,
        np.inf,
        clip_min=0,
        clip_max=1,
        y=y,
        targeted=t,
        rand_init=False,
        sanity_checks=False,
    ),
    ("mifgsm", "torchattacks"): lambda t, v, y: _torchattacks(
        "MIFGSM", t, v, y, eps=EPSILON, alpha=ALPHA, steps=v.steps
    ),
    ("mifgsm", "art"): lambda t, v, y: _art(
        MomentumIterativeMethod,
        v,
        y,
        eps=EPSILON,
        eps_step=ALPHA,
        max_iter=v.steps,
        decay=1.0,
        targeted=t,
        verbose=False,
    ),
    ("nifgsm", "torchattacks"): lambda t, v, y: _torchattacks(
        "NIFGSM", t, v, y, eps=EPSILON, alpha=ALPHA, steps=v.steps
    ),
}


def _case(attack: str, library: str, targeted: bool) -> Any:
    light = (attack, library, targeted) in {("pgd", "torchattacks", False), ("fgsm", "foolbox", False)}
    name = f"{attack} as {library}-{'targeted' if targeted else 'untargeted'}"
    marks = pytest.mark.suite(*VICTIMS) if light else ()
    return pytest.param((attack, library), targeted, id=name, marks=marks)


CASES = [
    _case(*case, targeted)
    for case in LIBRARIES
    for targeted in (False, True)
    if (case, targeted) != (("fgsm", "foolbox"), True)  # foolbox has none
]


@pytest.mark.parametrize(("case", "targeted"), CASES)
def test_linf_attacks_equal_the_library_bit_for_bit(
    case: tuple[str, str], targeted: bool, victim: Victim, agreement: Agreement
) -> None:
    """With momentum, on EfficientNet-Lite0, but for pixels whose gradients all but cancel."""
    label = (victim.labels + 1) % victim.classes if targeted else victim.labels
    options: dict[str, Any] = {"epsilon": EPSILON, "alpha": ALPHA, "steps": victim.steps, "decay": 1.0}
    known = {k: v for k, v in options.items() if k in ATTACKS[case[0]].parameters()}
    found = ours(case[0], victim, label, targeted=targeted, **known).x
    theirs = LIBRARIES[case](targeted, victim, label).detach()
    agreement.note(case[0], victim.name, values=differing(found, theirs))
    assert differing(found, theirs) <= (victim.ulps if "decay" in known else 0)
    assert not torch.equal(found, victim.images)


@pytest.mark.parametrize(("epsilon", "alpha"), [(0.5, 0.1), (2.0, 0.5)])
def test_pgd_l2_equals_foolbox_within_1e_6(
    epsilon: float, alpha: float, victim: Victim, agreement: Agreement
) -> None:
    attack = foolbox.attacks.L2PGD(abs_stepsize=alpha, steps=victim.steps, random_start=False)
    theirs = _foolbox(attack, False, victim, victim.labels, epsilon)
    found = ours("pgdl2", victim, epsilon=epsilon, alpha=alpha, steps=victim.steps).x
    agreement.note("pgdl2", victim.name, difference=apart(found, theirs))
    assert apart(found, theirs) <= (1e-4 if victim.ulps else 1e-6)
    assert not torch.equal(found, victim.images)


def apgd_equals_torchattacks(
    victim: Victim, agreement: Agreement, loss: str, loss_name: str, epsilon: float, steps: int
) -> None:
    """Its best point, the loss there, and the last point that fools."""
    x = victim.images
    theirs = torchattacks.APGD(victim.net, eps=epsilon, steps=steps, loss=loss)
    torch.manual_seed(7)
    x_top, _, loss_top, x_fooled = theirs.attack_single_run(x, victim.labels)
    torch.manual_seed(7)
    u = 2 * torch.rand(x.shape) - 1
    start = (x + epsilon * torch.ones(len(x), 1, 1, 1) * u / u.abs().amax((1, 2, 3), keepdim=True)).clamp(
        0, 1
    )
    table = ATTACKS["apgd"].new(
        x,
        classes=victim.classes,
        loss_name=loss_name,
        label=victim.labels,
        stop=NEVER,
        keep_last=True,
        epsilon=epsilon,
        steps=steps,
        random_start=False,
    )
    table.x.copy_(start)
    last = climb(table, victim.net).x.clone()
    fools = table.fooled.clone()
    table.step(*look(table, victim.net, table.x))  # notes the last point; the move after it is not looked at
    columns = table.columns()
    assert {"x_top", "loss_top"} <= set(columns)
    found: Tensor = table.x_top  # type: ignore[attr-defined]  # APGD's own
    agreement.note("apgd", victim.name, difference=apart(found, x_top))
    assert torch.equal(found, x_top), (found - x_top).abs().amax((1, 2, 3))
    assert torch.equal(table.loss_top, loss_top)  # type: ignore[attr-defined]
    assert torch.equal(last[fools], x_fooled[fools])
    assert fools.any()


LOSSES = pytest.mark.parametrize(("loss", "loss_name"), [("ce", "cross_entropy"), ("dlr", "dlr")])


@LOSSES
def test_apgd_equals_torchattacks_bit_for_bit_from_the_same_start(
    loss: str, loss_name: str, victim: Victim, agreement: Agreement
) -> None:
    apgd_equals_torchattacks(victim, agreement, loss, loss_name, 20 / 255, 2 * victim.steps)


@pytest.mark.parametrize("steps", [10, 40, 100])
@pytest.mark.parametrize("epsilon", [8 / 255, 20 / 255, 40 / 255])
@LOSSES
def test_apgd_equals_torchattacks_at_every_radius_and_length(
    loss: str, loss_name: str, epsilon: float, steps: int, agreement: Agreement
) -> None:
    apgd_equals_torchattacks(VICTIMS["toy"](), agreement, loss, loss_name, epsilon, steps)
