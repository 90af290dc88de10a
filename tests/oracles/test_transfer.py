"""Transfer attacks and targeted Auto-PGD equal torchattacks, given the same random numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iguana_server.attacks.apgdt import APGDT
from iguana_server.attacks.base import NEVER, Attack
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.attacks.difgsm import DIFGSM
from iguana_server.attacks.eot import EOT
from iguana_server.attacks.noise import draws, uniform
from iguana_server.attacks.pgd import PGD
from tests.attacks.alone import climb, look
from tests.oracles.agreement import Agreement, apart, differing
from tests.oracles.victim import VICTIMS, Victim

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they are years old
    import torchattacks

pytestmark = pytest.mark.filterwarnings("ignore")
EPSILON, ALPHA = 8 / 255, 2 / 255
DIVERSITY = {  # points and gradients of input diversity: a unit in 28, 224 pixels is rounded more coarsely than in 12
    "toy": (3e-6, 3e-6),
    "fashion-mnist-cnn": (6e-6, 2e-5),
    "efficientnet-lite0": (6e-5, 2e-4),
}


def ours(name: str, victim: Victim, label: Tensor, **columns: Any) -> Attack:
    common: dict[str, Any] = {"epsilon": EPSILON, "alpha": ALPHA, "steps": victim.steps, "decay": 1.0}
    table = ATTACKS[name].new(
        victim.images, classes=victim.classes, label=label, stop=NEVER, keep_last=True, **common | columns
    )
    return climb(table, victim.net)


def theirs(name: str, victim: Victim, label: Tensor, targeted: bool, **options: Any) -> Tensor:
    common: dict[str, Any] = {"eps": EPSILON, "alpha": ALPHA, "steps": victim.steps, "decay": 1.0}
    attack = getattr(torchattacks, name)(victim.net, **common | options)
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return torch.as_tensor(attack(victim.images, label)).detach()


def aimed(victim: Victim, targeted: bool) -> Tensor:
    """The label to leave, or to reach."""
    return (victim.labels + 1) % victim.classes if targeted else victim.labels


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize(
    ("name", "library", "columns", "options"),
    [
        ("difgsm", "DIFGSM", {"probability": 0.0}, {"diversity_prob": 0.0}),
        ("tifgsm", "TIFGSM", {}, {"diversity_prob": 0.0}),
        ("tifgsm", "TIFGSM", {"reach": 2}, {"diversity_prob": 0.0, "len_kernel": 5}),
        ("sinifgsm", "SINIFGSM", {}, {"m": 5}),
        ("sinifgsm", "SINIFGSM", {"copies": 3, "decay": 0.5}, {"m": 3, "decay": 0.5}),
    ],
    ids=["di off", "ti", "ti of 5", "si-ni", "si-ni of 3"],
)
def test_attacks_without_chance_equal_torchattacks_bit_for_bit(
    name: str,
    library: str,
    columns: dict[str, Any],
    options: dict[str, Any],
    targeted: bool,
    victim: Victim,
    agreement: Agreement,
) -> None:
    if library == "TIFGSM":
        victim = victim.coloured()  # it takes three channels
    label = aimed(victim, targeted)
    found = ours(name, victim, label, targeted=targeted, **columns).x
    wanted = theirs(library, victim, label, targeted, **options)
    agreement.note(name, victim.name, values=differing(found, wanted))
    assert differing(found, wanted) <= victim.ulps
    assert not torch.equal(found, victim.images)


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize(("name", "library"), [("vmifgsm", "VMIFGSM"), ("vnifgsm", "VNIFGSM")])
def test_variance_tuning_equals_torchattacks_bit_for_bit_with_the_same_noise(
    name: str,
    library: str,
    targeted: bool,
    victim: Victim,
    agreement: Agreement,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    label, neighbours, beta = aimed(victim, targeted), 4, 1.5
    sample = torch.arange(len(label))
    columns: dict[str, Any] = {"neighbours": neighbours, "beta": beta, "seed": 3, "sample": sample}
    table = ATTACKS[name].new(victim.images, classes=victim.classes, epsilon=EPSILON, **columns)

    def noises() -> Iterator[Tensor]:
        for t in range(victim.steps * (1 + neighbours)):
            table.t.fill_(t)
            if t % (1 + neighbours):
                yield (table.radius() * beta).view(-1, 1, 1, 1) * uniform(table)

    drawn = noises()
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "uniform_", lambda image, low, high: image.copy_(next(drawn)))  # noqa: ARG005
        wanted = theirs(library, victim, label, targeted, N=neighbours, beta=beta)
    assert next(drawn, None) is None
    found = ours(name, victim, label, targeted=targeted, **columns).x
    agreement.note(name, victim.name, values=differing(found, wanted))
    assert differing(found, wanted) <= victim.ulps


def test_input_diversity_and_its_gradient_equal_torchattacks_with_the_same_draws(
    victim: Victim, agreement: Agreement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within some 1e-6 (of the largest gradient): where a pixel is looked up is rounded otherwise.

    Both gradients are taken at the library's points: a ReLU may tell points apart that are an ulp from each other.
    """
    within, of_gradient = DIVERSITY[victim.name]
    net, x, y = victim.net, victim.images, victim.labels
    library = torchattacks.DIFGSM(net, diversity_prob=1.0, resize_rate=0.6)
    side = x.shape[-1]
    least = int(0.6 * side)
    for row in range(min(8, len(x))):
        one = slice(row, row + 1)
        table = DIFGSM.new(
            x[one], classes=victim.classes, probability=1.0, scale=0.6, seed=9, sample=row, label=y[row]
        )
        u = draws(table, 4)[0]
        size = least + int((side - least) * u[1])
        sizes = iter([size, *(int((side - size) * each) for each in u[2:])])
        bounds: list[tuple[int, int]] = []

        def randint(
            low: int,
            high: int,
            *,
            bounds: list[tuple[int, int]] = bounds,
            sizes: Iterator[int] = sizes,
            **_: Any,
        ) -> Tensor:
            bounds.append((low, high))
            return torch.tensor([next(sizes)], dtype=torch.int32)

        leaf = x[one].clone().requires_grad_()
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", randint)
            wanted = library.input_diversity(leaf)
        assert bounds == [(least, side), (0, side - size), (0, side - size)]
        agreement.note("difgsm, points", victim.name, difference=apart(table.points(), wanted))
        assert apart(table.points(), wanted) <= within
        loss = nn.functional.cross_entropy(net(wanted), y[one])
        (gradient,) = torch.autograd.grad(loss, leaf)
        table.move(*look(table, net, wanted))
        scaled = gradient / gradient.abs().mean()
        relative = apart(table.momentum, scaled) / float(scaled.abs().max())
        agreement.note("difgsm, gradient", victim.name, difference=relative)
        assert relative <= of_gradient


def apgdt_equals_torchattacks(
    victim: Victim, agreement: Agreement, restart: int, epsilon: float, steps: int
) -> None:
    """Its best point but for some ulps, the last point that fools, and the loss but for rounding.

    The library halves two logits before it adds them, the authors' own code after.
    """
    net, x, y = victim.net, victim.images, victim.labels
    library = torchattacks.APGDT(net, eps=epsilon, steps=steps, n_classes=victim.classes)
    library.target_class = 2 + restart % 9
    torch.manual_seed(7)
    x_top, _, loss_top, x_fooled = library.attack_single_run(x, y)
    torch.manual_seed(7)
    u = 2 * torch.rand(x.shape) - 1
    start = x + epsilon * torch.ones(len(x), 1, 1, 1) * u / u.abs().amax((1, 2, 3), keepdim=True)

    class Started(APGDT):
        """From a given start."""

        name = "started"

        def begin(self) -> None:
            self.x.copy_(start.clamp(0, 1))

    table = Started.new(
        x,
        classes=victim.classes,
        label=y,
        stop=NEVER,
        keep_last=True,
        epsilon=epsilon,
        steps=steps,
        restart=restart,
    )
    last = climb(table, net).x.clone()
    fools = table.fooled.clone()
    table.step(*look(table, net, table.x))  # notes the last point; the move after it is not looked at
    agreement.note("apgdt", victim.name, difference=apart(table.x_top, x_top))
    assert apart(table.x_top, x_top) <= 2e-6
    assert (table.x_top != x_top).float().mean() <= 1e-3
    torch.testing.assert_close(table.loss_top, loss_top, rtol=1e-4, atol=1e-5)
    assert apart(last[fools], x_fooled[fools]) <= 2e-6
    assert (table.x_top != x).any()


@pytest.mark.parametrize("restart", [0, 3])
def test_targeted_apgd_equals_torchattacks_from_the_same_start(
    restart: int, victim: Victim, agreement: Agreement
) -> None:
    apgdt_equals_torchattacks(victim, agreement, restart, 20 / 255, 2 * victim.steps)


@pytest.mark.parametrize("steps", [10, 100])
@pytest.mark.parametrize("epsilon", [8 / 255, 20 / 255])
@pytest.mark.parametrize("restart", [0, 3, 8, 12])
def test_targeted_apgd_equals_torchattacks_towards_every_class(
    restart: int, epsilon: float, steps: int, agreement: Agreement
) -> None:
    apgdt_equals_torchattacks(VICTIMS["toy"](), agreement, restart, epsilon, steps)


def test_eot_without_transforms_is_pgd_bit_for_bit(victim: Victim, agreement: Agreement) -> None:
    common: dict[str, Any] = {"classes": victim.classes, "steps": victim.steps, "stop": NEVER}
    found = climb(EOT.new(victim.images, copies=0, **common), victim.net).x
    wanted = climb(PGD.new(victim.images, **common), victim.net).x
    agreement.note("eot", victim.name, difference=apart(found, wanted))
    assert torch.equal(found, wanted)
    assert not torch.equal(found, victim.images)
