"""The query attacks beside the libraries: proposal by proposal where the draws can be shared, else by success."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from iguana_server.attacks.base import FIRST_SUCCESS, NEVER, Attack
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.attacks.nes import NES
from iguana_server.attacks.rays import RayS
from iguana_server.attacks.simba import SimBA
from iguana_server.attacks.square import Square
from iguana_server.attacks.squarel2 import SquareL2, pyramids
from tests.attacks import loops
from tests.attacks.alone import Net, climb, look
from tests.oracles.agreement import Agreement, apart
from tests.oracles.victim import Victim

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # they are years old
    import foolbox
    import torchattacks
    from art.attacks.evasion import SimBA as ArtSimBA
    from art.estimators.classification import PyTorchClassifier
    from torchattacks.attacks import square as their_module

pytestmark = pytest.mark.filterwarnings("ignore")
SHAPE, CLASSES = (3, 20, 20), 5
SERVED = pytest.mark.parametrize("victim", ["fashion-mnist-cnn", "efficientnet-lite0"], indirect=True)


class Coarse(nn.Module):
    """A net that sees a blurred image: Square's squares mean something to it."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.inner = torch.randn(48, 32, generator=generator) / 7
        self.outer = torch.randn(32, CLASSES, generator=generator)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return (4 * (F.avg_pool2d(x, 5).flatten(1) - 0.5) @ self.inner).tanh() @ self.outer


def _pictures(n: int) -> Tensor:
    return torch.rand((n, *SHAPE), generator=torch.Generator().manual_seed(1))


# --- Square ----------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 7, 100, 999, 5000, 9998])
def test_square_halves_its_share_where_torchattacks_does(budget: int) -> None:
    theirs = torchattacks.Square(nn.Identity(), n_queries=budget)
    t = torch.arange(budget)
    table = Square.new(torch.zeros(budget, 1, 28, 28), classes=2, queries=budget + 2, t=t)
    found = table.side().tolist()
    assert found == [max(round((theirs.p_selection(k) * 28 * 28) ** 0.5), 1) for k in t.tolist()]
    assert budget < 999 or len(set(found)) == 9  # the last two shares are of less than a pixel


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 21])
def test_pyramids_are_those_of_torchattacks(side: int, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = torchattacks.Square(nn.Identity())
    theirs.device = torch.device("cpu")
    monkeypatch.setattr(their_module.torch, "rand", lambda _: torch.tensor([1.0 if turned else 0.0]))
    i = torch.arange(-1, side + 1)
    found = pyramids(i.view(1, -1, 1), i.view(1, 1, -1), torch.tensor([side]), torch.tensor([turned]))[0]
    want = F.pad(theirs.eta(side), (1, 1, 1, 1))
    torch.testing.assert_close(found, want, atol=1e-6, rtol=0)
    assert found.norm().item() == pytest.approx(1, abs=1e-6)


class Tape:
    """The numbers that a table has drawn, in the order of the draws."""

    def __init__(self, attack: type[Square], monkeypatch: pytest.MonkeyPatch) -> None:
        self.draws: list[Tensor] = []
        draw = attack.draw

        def record(table: Attack, number: Tensor, size: int) -> Tensor:
            assert isinstance(table, Square)
            u = draw(table, number, size)
            self.draws.append(u[0].clone())
            return u

        monkeypatch.setattr(attack, "draw", record)

    def numbers(self, channels: int, tiles: int) -> Iterator[Tensor]:
        """In the order in which torchattacks' code asks; tiles: 0 for Linf."""
        start, *proposals = self.draws
        if tiles:
            start = start.view(channels + 1, tiles)
            for tile in range(tiles):
                yield from (start[:1, tile], start[1:, tile])
        else:
            yield start
        for u in proposals:
            yield from (u[k : k + 1] for k in range(5 if tiles else 2))
            yield u[5 if tiles else 2 :]


def square_equals_torchattacks(
    attack: type[Square], norm: str, epsilon: float, net: Net, x0: Tensor, monkeypatch: pytest.MonkeyPatch
) -> float:
    """The largest difference after 200 proposals to a picture [1, C, H, W] that is not fooled.

    The same pictures, the same kept. In L2 what is free of the ball is a difference of like numbers, whose rounding
    grows from proposal to proposal.
    """
    channels, size = x0.shape[1:3]
    with torch.no_grad():
        held = 10 * F.one_hot(net(x0).argmax(1), net(x0).shape[1])

    def model(x: Tensor) -> Tensor:
        with torch.no_grad():
            return net(x) + held

    label = model(x0).argmax(1)
    tape = Tape(attack, monkeypatch)
    table = attack.new(x0, classes=held.shape[1], label=label, stop=NEVER, epsilon=epsilon, queries=202)
    climb(table, model)
    assert not table.fooled.any()

    theirs = torchattacks.Square(model, norm=norm, eps=epsilon, n_queries=200)
    numbers = tape.numbers(channels, (size // (size // 5)) ** 2 if norm == "L2" else 0)
    monkeypatch.setattr(theirs, "random_int", lambda _, high: int(next(numbers) * (high + 1)))
    monkeypatch.setattr(
        theirs, "random_choice", lambda shape: torch.where(next(numbers) < 0.5, -1.0, 1.0).view(shape)
    )
    monkeypatch.setattr(their_module.torch, "rand", lambda _: next(numbers))
    shown: list[Tensor] = []
    judge = theirs.margin_and_loss

    def note(x: Tensor, y: Tensor) -> Any:
        shown.append(x.clone())
        return judge(x, y)

    monkeypatch.setattr(theirs, "margin_and_loss", note)
    theirs.device, theirs.targeted = torch.device("cpu"), False
    theirs.init_hyperparam(x0)
    _, best = theirs.attack_single_run(x0, label)
    assert len(shown) == 201
    assert (best - x0).abs().max() > 0.5 * (epsilon if norm == "Linf" else 0.05)
    # The last proposal is looked at here too, but held by nobody.
    return max(apart(table.x, shown[-1]), min(apart(one, best) for one in (table.held, table.x)))


SQUARES = pytest.mark.parametrize(
    ("attack", "norm", "epsilon"), [(Square, "Linf", 0.02), (SquareL2, "L2", 0.4)], ids=["linf", "l2"]
)


@pytest.mark.parametrize("size", [20, 28])
@SQUARES
def test_square_equals_torchattacks_given_the_same_draws(
    attack: type[Square],
    norm: str,
    epsilon: float,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
    agreement: Agreement,
) -> None:
    net = Coarse()
    x0 = torch.rand((1, 3, size, size), generator=torch.Generator().manual_seed(2))

    def model(x: Tensor) -> Tensor:
        logits: Tensor = net(F.interpolate(x, SHAPE[1:], mode="bilinear"))
        return logits

    difference = square_equals_torchattacks(attack, norm, epsilon, model, x0, monkeypatch)
    agreement.note(attack.name, "toy", difference=difference)
    assert difference <= 1e-5


@SERVED
@SQUARES
def test_square_equals_torchattacks_on_what_is_served(
    attack: type[Square],
    norm: str,
    epsilon: float,
    victim: Victim,
    monkeypatch: pytest.MonkeyPatch,
    agreement: Agreement,
) -> None:
    difference = square_equals_torchattacks(attack, norm, epsilon, victim.net, victim.images[:1], monkeypatch)
    agreement.note(attack.name, victim.name, difference=difference)
    assert difference <= (1e-3 if victim.ulps and norm == "L2" else 1e-5)


@pytest.mark.parametrize(("name", "norm", "epsilon"), [("square", "Linf", 0.02), ("squarel2", "L2", 0.7)])
def test_square_succeeds_as_often_as_torchattacks(name: str, norm: str, epsilon: float) -> None:
    net, x0 = Coarse(), _pictures(400)
    label = net(x0).argmax(1)
    theirs = torchattacks.Square(net, norm=norm, eps=epsilon, n_queries=150)(x0, label)
    expected = (net(theirs).argmax(1) != label).float().mean().item()
    table = ATTACKS[name].new(
        x0,
        classes=CLASSES,
        label=label,
        stop=FIRST_SUCCESS,
        epsilon=epsilon,
        queries=152,
        sample=torch.arange(400),
    )
    found = climb(table, net).fooled.float().mean().item()
    assert 0.2 < expected < 0.9
    assert abs(found - expected) <= 0.06, (found, expected)


# --- the others ------------------------------------------------------------------------


def test_simba_equals_art_where_one_side_of_each_pixel_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """ART asks both sides and takes the better; with two classes on a plane that is the one the paper takes."""
    w = torch.randn(48, generator=torch.Generator().manual_seed(4))
    x0 = 0.3 + 0.4 * torch.rand((1, 3, 4, 4), generator=torch.Generator().manual_seed(5))

    class Plane(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            lead = (x.flatten(1) - x0.flatten(1)) @ w - 2
            return torch.stack([torch.zeros_like(lead), lead], 1).softmax(1)

    net = Plane()
    table = SimBA.new(x0, classes=2, loss_name="logit", label=0, stop=FIRST_SUCCESS, queries=99, alpha=0.1)
    order = table.draw_image(table.t).flatten().argsort().numpy()
    climb(table, net)
    classifier = PyTorchClassifier(
        net,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 4, 4),
        nb_classes=2,
        clip_values=(0, 1),
        device_type="cpu",
    )
    monkeypatch.setattr(np.random, "permutation", lambda _: order)
    attack = ArtSimBA(
        classifier, attack="px", epsilon=0.1, max_iter=48, order="random", freq_dim=4, verbose=False
    )
    theirs = torch.from_numpy(attack.generate(x0.numpy(), y=np.array([[1.0, 0.0]])))
    assert table.fooled.all()
    assert (table.best - theirs).abs().max() <= 1e-6


def as_near_as_foolbox(
    name: str, options: dict[str, Any], theirs: Any, net: nn.Module, x0: Tensor, classes: int
) -> float:
    """Our median distance by foolbox's, after as many queries."""
    queries = 0

    def count(_: nn.Module, __: Any, logits: Tensor) -> None:
        nonlocal queries
        queries += len(logits)

    with torch.no_grad():
        label = net(x0).argmax(1)
    torch.manual_seed(0)
    counting = net.register_forward_hook(count)
    found = torch.as_tensor(theirs.run(foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu"), x0, label))
    counting.remove()
    sample = torch.arange(len(x0))
    table = ATTACKS[name].new(
        x0,
        classes=classes,
        label=label,
        stop=NEVER,
        queries=queries // len(x0),
        sample=sample,
        **options,
    )
    climb(table, net)
    assert table.fooled.all()

    def distance(x: Tensor) -> Tensor:
        change = (x - x0).flatten(1)
        return change.abs().amax(1) if options.get("distance") else change.norm(dim=1)

    return float(distance(table.best).median() / distance(found).median())


BY_LABELS = pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("hopskipjump", {"distance": 0}, foolbox.attacks.HopSkipJumpAttack),
        ("hopskipjump", {"distance": 1}, partial(foolbox.attacks.HopSkipJumpAttack, constraint="linf")),
        ("boundary", {}, foolbox.attacks.BoundaryAttack),
    ],
    ids=["hopskipjump l2", "hopskipjump linf", "boundary"],
)


@BY_LABELS
def test_attacks_by_labels_come_as_near_as_foolbox_with_as_many_queries(
    name: str, options: dict[str, Any], theirs: Any, agreement: Agreement
) -> None:
    steps = 4 if name == "hopskipjump" else 800
    ratio = as_near_as_foolbox(name, options, theirs(steps=steps), Coarse(), _pictures(24), CLASSES)
    agreement.note(name, "toy", ratio=ratio)
    assert ratio <= 1.1


@pytest.mark.suite
@pytest.mark.parametrize("victim", ["fashion-mnist-cnn"], indirect=True)
@BY_LABELS
def test_attacks_by_labels_come_as_near_as_foolbox_on_what_is_served(
    name: str, options: dict[str, Any], theirs: Any, victim: Victim, agreement: Agreement
) -> None:
    """Not on EfficientNet-Lite0, where thousands of looks are minutes, and fewer a game of chance."""
    steps = {"hopskipjump": 3, "boundary": 500}[name]
    images, classes = victim.images, victim.classes
    ratio = as_near_as_foolbox(name, options, theirs(steps=steps), victim.net, images, classes)
    agreement.note(name, victim.name, ratio=ratio)
    assert ratio <= 1.1


@SERVED
def test_simba_equals_its_loop_on_what_is_served(victim: Victim, agreement: Agreement) -> None:
    """But for the last try, which is not looked at."""
    net, x0, label, queries = victim.net, victim.images[:1], victim.labels[:1], 120
    table = SimBA.new(x0, classes=victim.classes, label=label, stop=NEVER, sample=4, queries=queries)
    order = table.draw_image(table.t).flatten(1).argsort(1)
    with torch.no_grad():
        climb(table, net)
        x, top = loops.simba(lambda x: float(F.cross_entropy(net(x[None]), label)), x0[0], order[0], queries)
    found = table.x[0].clone()
    found.view(-1)[table.pixel[0]] = x.view(-1)[table.pixel[0]]
    agreement.note("simba", victim.name, difference=apart(found, x))
    assert torch.equal(found, x)
    assert float(table.held_loss) == pytest.approx(top, abs=1e-6)
    assert (x != x0[0]).sum() >= 5


@SERVED
def test_rays_equals_its_loop_on_what_is_served(victim: Victim, agreement: Agreement) -> None:
    net, x0, label = victim.net, victim.images[:1], victim.labels[:1]
    table = RayS.new(x0, classes=victim.classes, label=label, stop=NEVER, queries=150)
    with torch.no_grad():
        climb(table, net)
        wanted = loops.rays(lambda x: int(net(x[None]).argmax()) != int(label), x0[0], 150, 1e-3)
    agreement.note("rays", victim.name, difference=apart(table.best[0], wanted))
    assert table.fooled.all()
    assert apart(table.best[0], wanted) <= 1e-7
    assert not torch.equal(wanted, x0[0])


@SERVED
def test_nes_follows_the_cosine_law_on_what_is_served(victim: Victim) -> None:
    """m pairs of d pixels: the cosine to the gradient is sqrt(m / (m + d + 1)), within four standard deviations."""
    net, pairs = victim.net, 25
    x0 = 0.25 + 0.5 * victim.images.repeat(4, 1, 1, 1)  # off the box's sides
    with torch.no_grad():
        label = net(x0).argmax(1)
    n, d = len(x0), x0[0].numel()
    table = NES.new(
        x0,
        classes=victim.classes,
        loss_name="margin",
        label=label,
        stop=NEVER,
        sample=torch.arange(n),
        queries=2 * pairs + 2,
        pairs=pairs,
    )
    _, _, gradient = look(table, net, x0)
    with torch.no_grad():
        climb(table, net)
    found = F.cosine_similarity(table.estimate.flatten(1), gradient.flatten(1)).mean()
    assert float(found) == pytest.approx(math.sqrt(pairs / (pairs + d + 1)), abs=4 / math.sqrt(n * d))
