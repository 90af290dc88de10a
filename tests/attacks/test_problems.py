"""ATTACKS x PROBLEMS: every attack gets near the best point there is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from iguana_server.attacks.base import NEVER, Attack
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.attacks.minimumnorm import L2, LINF, MinimumNorm
from tests.attacks.alone import climb
from tests.problems import PROBLEMS, Problem

ROWS, EPSILON = 6, 0.1

# The share of the way from the clean lead to the best lead that must be made,
# in the mean of the rows; 0.95 if not listed.
REACH = {
    # one step has one length: right on a plane and before a far peak, too long where the peak is near
    ("fgsm", "peak inside the ball"): 0.3,
    # half of the random step (epsilon / 2) points the wrong way, at random: 0.5 in the mean on a plane
    ("rfgsm", "linear"): 0.2,
    ("rfgsm", "peak outside the ball"): 0.2,
    ("rfgsm", "peak inside the ball"): 0.2,
    # the best of 40 blind draws
    ("noise", "linear"): 0.2,
    ("noise", "peak outside the ball"): 0.2,
    ("noise", "peak inside the ball"): 0.03,
    # momentum circles the peak at a step's length
    ("mifgsm", "peak inside the ball"): 0.9,
    ("nifgsm", "peak inside the ball"): 0.85,  # only the last iterate counts
    ("vmifgsm", "peak inside the ball"): 0.9,
    ("vnifgsm", "peak inside the ball"): 0.8,
    # gradients of other pictures than the one that is judged: shrunk, of all places near, darker, photographed
    ("difgsm", "linear"): 0.8,
    ("difgsm", "peak outside the ball"): 0.7,
    ("difgsm", "peak inside the ball"): 0.6,
    ("tifgsm", "linear"): 0.5,  # on four by four pixels a kernel of 15 makes nearly one number of a gradient
    ("tifgsm", "peak outside the ball"): 0.4,
    ("tifgsm", "peak inside the ball"): 0.5,
    ("sinifgsm", "peak outside the ball"): 0.9,
    ("sinifgsm", "peak inside the ball"): 0.0,  # the darker copies' peak is far away in brightness
    ("eot", "peak inside the ball"): 0.9,
    # 19 steps of a tenth of epsilon, some of them the wrong way where a weight is small
    ("nes", "linear"): 0.9,
    ("spsa", "linear"): 0.9,
    # corners of the ball alone are tried
    ("square", "peak inside the ball"): 0.3,
    # smooth windows of 3 x 3 pixels on the sphere alone, and every pixel of the problems wants a sign of its own
    ("squarel2", "linear"): 0.6,
    ("squarel2", "peak outside the ball"): 0.6,
    ("squarel2", "peak inside the ball"): 0.03,
}


def _table(attack: type[Attack]) -> Attack:
    x0 = 0.5 + 0.02 * torch.randn((ROWS, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    epsilon = EPSILON * (4 if attack.norm == "l2" else 1)
    options = {
        "epsilon": epsilon,
        "alpha": epsilon / 2 if attack.name == "rfgsm" else epsilon / 10,
        "steps": 40,
        "queries": 1000,
    }
    if attack.name == "eot":  # a good camera: of four by four pixels a bad one leaves nothing
        options |= dict.fromkeys(("scale", "shift", "perspective", "brightness", "contrast", "noise"), 0.01)
        options |= {"copies": 4, "rotation": 1, "blur": 0.2, "jpeg": 0}
    known: dict[str, Any] = {name: value for name, value in options.items() if name in attack.parameters()}
    return attack.new(
        x0, classes=2, loss_name="margin", stop=NEVER, label=0, sample=torch.arange(ROWS), **known
    )


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
@pytest.mark.parametrize(
    "attack", [a for a in ATTACKS.values() if a.norm != "none"], ids=lambda attack: attack.name
)
def test_attack_reaches_the_best_point_of_its_ball(attack: type[Attack], problem: Problem) -> None:
    table = climb(_table(attack), problem.model)
    radius = float(table.radius()[0])
    best = problem.lead(problem.best(table.x0, radius, attack.norm))
    clean, found = problem.lead(table.x0), problem.lead(table.best)
    share = (found - clean) / (best - clean)
    assert share.max() <= 1 + 1e-4
    assert share.mean() >= REACH.get((attack.name, problem.name), 0.95), share
    assert share.min() >= 0


# How much farther than the nearest point of the boundary the answer may be, in the mean of the rows; 1 % if
# not listed.
FARTHER = {
    # it overshoots by 2 %, and takes the ascent to the peak for a plane
    ("deepfool", "linear"): 0.03,
    ("deepfool", "peak outside the ball"): 0.05,
    ("deepfool", "peak inside the ball"): 0.05,
    # Adam's steps grow where the gradient shrinks
    ("cw", "peak inside the ball"): 0.02,
}
NEAREST = [
    (attack, metric)
    for attack in ATTACKS.values()
    if issubclass(attack, MinimumNorm)
    for metric in (("l2", "linf") if "metric" in attack.parameters() else ("l2",))
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
@pytest.mark.parametrize(("attack", "metric"), NEAREST, ids=lambda v: v if isinstance(v, str) else v.name)
def test_attack_reaches_the_nearest_point_of_the_boundary(
    attack: type[MinimumNorm], metric: str, problem: Problem
) -> None:
    x0 = 0.5 + 0.02 * torch.randn((ROWS, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    clean, best = problem.lead(x0), problem.lead(problem.best(x0, EPSILON, "linf"))
    level = float(clean.max() + best.min()) / 2
    known = {"metric": L2 if metric == "l2" else LINF, "initial_epsilon": 0.2, "alpha": 0.3}
    options: dict[str, Any] = {k: v for k, v in known.items() if k in attack.parameters()}
    table = attack.new(x0, classes=2, loss_name="margin", stop=NEVER, label=0, **options)
    climb(table, lambda x: problem.model(x, level))
    assert table.fooled.all()
    farther = table.distance(table.best) / problem.distance(x0, level, metric) - 1
    assert farther.min() >= -1e-4
    assert farther.mean() <= FARTHER.get((attack.name, problem.name), 0.01), farther


@pytest.mark.parametrize("optimizer", [0, 1], ids=["adam", "sign"])
def test_forge_reaches_the_balance_of_loss_and_likeness(optimizer: int) -> None:
    """On a plane, loss + penalty |x - x0|^2 is least at x0 + w / (2 penalty)."""
    plane = PROBLEMS[0]
    x0 = torch.full((1, 1, 4, 4), 0.5)
    leaf = x0.clone().requires_grad_()
    (weights,) = torch.autograd.grad(plane.lead(leaf).sum(), leaf)
    penalty = 8.0
    table = ATTACKS["forge"].new(
        x0,
        classes=2,
        loss_name="margin",
        stop=NEVER,
        label=0,
        reference=x0,
        penalty=penalty,
        rate=0.004,
        steps=200,
        optimizer=optimizer,
    )
    found = climb(table, plane.model).best

    def objective(x: torch.Tensor) -> float:
        return float(plane.lead(x) - penalty * (x - x0).square().sum())

    best = objective((x0 + weights / (2 * penalty)).clamp(0, 1))
    assert (objective(found) - objective(x0)) / (best - objective(x0)) >= 0.99
