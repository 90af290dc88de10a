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
from iguana_server.attacks.noise import draws, uniform
from tests.attacks.alone import climb, look

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they are years old
    import torchattacks

pytestmark = pytest.mark.filterwarnings("ignore")
EPSILON, ALPHA, STEPS, CLASSES = 8 / 255, 2 / 255, 10, 10
COMMON: dict[str, Any] = {"epsilon": EPSILON, "alpha": ALPHA, "steps": STEPS, "decay": 1.0}
THEIRS: dict[str, Any] = {"eps": EPSILON, "alpha": ALPHA, "steps": STEPS, "decay": 1.0}
Victim = tuple[nn.Module, Tensor, Tensor]  # net, images, labels


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
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
        nn.Linear(8 * 9 * 9, CLASSES),
    ).eval()
    x = torch.rand(64, 3, 20, 20)
    return net, x, net(x).argmax(1)


def ours(name: str, victim: Victim, label: Tensor, **columns: Any) -> Attack:
    net, x, _ = victim
    table = ATTACKS[name].new(x, classes=CLASSES, label=label, stop=NEVER, keep_last=True, **columns)
    return climb(table, net)


def theirs(name: str, victim: Victim, label: Tensor, targeted: bool, **options: Any) -> Tensor:
    net, x, _ = victim
    attack = getattr(torchattacks, name)(net, **options)
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return torch.as_tensor(attack(x, label)).detach()


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
    name: str, library: str, columns: dict[str, Any], options: dict[str, Any], targeted: bool, victim: Victim
) -> None:
    label = (victim[2] + 1) % CLASSES if targeted else victim[2]
    found = ours(name, victim, label, targeted=targeted, **COMMON | columns).x
    wanted = theirs(library, victim, label, targeted, **THEIRS | options)
    assert torch.equal(found, wanted), (found != wanted).sum()
    assert not torch.equal(found, victim[1])


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize(("name", "library"), [("vmifgsm", "VMIFGSM"), ("vnifgsm", "VNIFGSM")])
def test_variance_tuning_equals_torchattacks_bit_for_bit_with_the_same_noise(
    name: str, library: str, targeted: bool, victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, x, y = victim
    label = (y + 1) % CLASSES if targeted else y
    neighbours, beta = 4, 1.5
    columns: dict[str, Any] = {"neighbours": neighbours, "beta": beta, "seed": 3, "sample": torch.arange(64)}
    table = ATTACKS[name].new(x, classes=CLASSES, **COMMON | columns)

    def noises() -> Iterator[Tensor]:
        for t in range(STEPS * (1 + neighbours)):
            table.t.fill_(t)
            if t % (1 + neighbours):
                yield (table.radius() * beta).view(-1, 1, 1, 1) * uniform(table)

    drawn = noises()
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "uniform_", lambda image, low, high: image.copy_(next(drawn)))  # noqa: ARG005
        wanted = theirs(library, victim, label, targeted, **THEIRS | {"N": neighbours, "beta": beta})
    assert next(drawn, None) is None
    found = ours(name, victim, label, targeted=targeted, **COMMON | columns).x
    assert torch.equal(found, wanted), (found != wanted).sum()


def test_input_diversity_and_its_gradient_equal_torchattacks_with_the_same_draws(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 3e-6 (of the largest gradient): where a pixel is looked up is rounded otherwise."""
    net, x, y = victim
    library = torchattacks.DIFGSM(net, diversity_prob=1.0, resize_rate=0.6)
    for row in range(8):
        table = DIFGSM.new(
            x[row : row + 1], classes=CLASSES, probability=1.0, scale=0.6, seed=9, sample=row, label=y[row]
        )
        side, least = 20, 12
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

        leaf = x[row : row + 1].clone().requires_grad_()
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", randint)
            wanted = library.input_diversity(leaf)
        assert bounds == [(least, side), (0, side - size), (0, side - size)]
        assert (table.points() - wanted).abs().max() <= 3e-6
        loss = nn.functional.cross_entropy(net(wanted), y[row : row + 1])
        (gradient,) = torch.autograd.grad(loss, leaf)
        table.move(*look(table, net, table.points()))
        scaled = gradient / gradient.abs().mean()
        assert (table.momentum - scaled).abs().max() <= 3e-6 * scaled.abs().max()


@pytest.mark.parametrize("steps", [10, 100])
@pytest.mark.parametrize("epsilon", [8 / 255, 20 / 255])
@pytest.mark.parametrize("restart", [0, 3, 8, 12])
def test_targeted_apgd_equals_torchattacks_bit_for_bit_from_the_same_start(
    restart: int, epsilon: float, steps: int, victim: Victim
) -> None:
    """Towards classes of several ranks: its best point, the last point that fools, and the loss but for rounding.

    The library halves two logits before it adds them, the authors' own code after.
    """
    net, x, y = victim
    library = torchattacks.APGDT(net, eps=epsilon, steps=steps, n_classes=CLASSES)
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
        x, classes=CLASSES, label=y, stop=NEVER, keep_last=True, epsilon=epsilon, steps=steps, restart=restart
    )
    last = climb(table, net).x.clone()
    fools = table.fooled.clone()
    table.step(*look(table, net, table.x))  # notes the last point; the move after it is not looked at
    assert torch.equal(table.x_top, x_top)
    torch.testing.assert_close(table.loss_top, loss_top, rtol=1e-4, atol=1e-5)
    assert torch.equal(last[fools], x_fooled[fools])
    assert (table.x_top != x).any()
