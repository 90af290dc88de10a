"""Attacks that ask for answers only: what they may see, and how often they may ask."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server.attacks.base import FIRST_SUCCESS, NEVER
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.attacks.decision import Decision
from iguana_server.attacks.differences import Differences
from iguana_server.attacks.estimate import Estimate
from iguana_server.attacks.nes import NES
from iguana_server.attacks.queries import Query
from iguana_server.attacks.rays import RayS
from iguana_server.attacks.simba import SimBA
from iguana_server.attacks.spsa import SPSA
from iguana_server.engine import Engine, Forged
from iguana_server.models.base import Model
from tests.attacks import loops
from tests.attacks.alone import Net, climb, look
from tests.engine.bench_by_hand import job
from tests.nets import CLASSES, pictures, toy

QUERIES = sorted(name for name, attack in ATTACKS.items() if issubclass(attack, Query))
DECISIONS = sorted(name for name, attack in ATTACKS.items() if issubclass(attack, Decision))
MODEL = toy()


class Counting:
    """A model that counts the rows it sees."""

    def __init__(self, model: Model) -> None:
        self._model, self.rows = model, 0
        self.spec, self.sizes = model.spec, model.sizes
        self.device, self.memory_format = model.device, model.memory_format

    def __call__(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self._model(x)


def test_all_of_them_are_there() -> None:
    assert QUERIES == [
        "boundary",
        "differences",
        "hopskipjump",
        "nes",
        "rays",
        "simba",
        "spsa",
        "square",
        "squarel2",
    ]
    assert DECISIONS == ["boundary", "hopskipjump", "rays"]
    assert {ATTACKS[name].default_stop for name in DECISIONS} == {NEVER}
    assert {ATTACKS[name].default_stop for name in set(QUERIES) - set(DECISIONS)} == {FIRST_SUCCESS}


@pytest.mark.parametrize("on_grid", [False, True], ids=["float", "grid"])
@pytest.mark.parametrize("name", QUERIES)
async def test_a_row_takes_exactly_the_looks_it_was_given(name: str, on_grid: bool) -> None:
    """As the server counts them, and as the victim does."""
    victim, budget = Counting(toy()), torch.tensor([3, 4, 5, 17, 64, 101])
    with Engine({"toy": victim}) as engine:  # type: ignore[dict-item]  # looks like one
        answers = await engine.run(
            job(
                toy(),
                ATTACKS[name],
                pictures(6),
                "me",
                queries=budget,
                stop=NEVER,
                on_grid=on_grid,
                strict=False,
            )
        )
    forged = [answer for answer in answers if isinstance(answer, Forged)]
    assert [one.forward for one in forged] == budget.tolist()
    assert {one.backward for one in forged} == {0}
    assert victim.rows == int(budget.sum())


async def test_a_sparing_square_finds_what_square_finds_with_fewer_looks() -> None:
    images = pictures(8)
    found: list[list[Forged]] = []
    for sparing in (False, True):
        with Engine({"toy": MODEL}) as engine:
            columns: dict[str, Any] = {"epsilon": 0.01, "queries": 400, "sparing": sparing, "stop": NEVER}
            answers = await engine.run(job(MODEL, ATTACKS["square"], images, "me", **columns))
        found.append([one for one in answers if isinstance(one, Forged)])
    for plain, other in zip(*found, strict=True):
        assert torch.equal(plain.image, other.image)
        assert (plain.margin, plain.step, plain.fooled) == (other.margin, other.step, other.fooled)
        assert plain.forward == 400
        assert other.forward < 400
    assert sum(one.forward for one in found[1]) < 0.95 * 8 * 400


def _ranks(x: Tensor) -> Tensor:
    """The logits' order alone."""
    return MODEL(x).argsort(1).argsort(1).float()


def _winner(x: Tensor) -> Tensor:
    """The label alone."""
    return torch.nn.functional.one_hot(MODEL(x).argmax(1), CLASSES).float()


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("see", [_ranks, _winner], ids=["ranks", "winner"])
@pytest.mark.parametrize("name", [*DECISIONS, "square"])
def test_attacks_by_labels_see_the_label_only(name: str, see: Net, targeted: bool) -> None:
    """What keeps the winner does not change one bit of any picture; Square, which sees more, shows that it could."""
    x0 = pictures(6)

    def run(model: Net) -> list[Tensor]:
        label = (MODEL(x0).argmax(1) + 1) % CLASSES if targeted else -1
        table = ATTACKS[name].new(
            x0,
            classes=CLASSES,
            label=label,
            targeted=targeted,
            stop=NEVER,
            sample=torch.arange(6),
            queries=300,
        )
        climb(table, model)
        return [getattr(table, c) for c, column in table.columns().items() if column.shape == "image"]

    same = all(torch.equal(one, other) for one, other in zip(run(MODEL), run(see), strict=True))
    assert same is (name != "square")


@pytest.mark.parametrize("on_grid", [False, True], ids=["float", "grid"])
@pytest.mark.parametrize("name", DECISIONS)
def test_where_nothing_fools_the_clean_image_is_answered(name: str, on_grid: bool) -> None:
    """And no column is ever NaN."""

    def deaf(x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.zeros(len(x), dtype=torch.int64), CLASSES).float()

    x0 = pictures(3)
    table = climb(ATTACKS[name].new(x0, classes=CLASSES, on_grid=on_grid, stop=NEVER, queries=200), deaf)
    assert not table.fooled.any()
    assert table.finite.all()
    assert torch.equal(table.best, x0)
    assert not any(getattr(table, column).isnan().any() for column in table.columns())


@pytest.mark.parametrize("on_grid", [False, True], ids=["float", "grid"])
@pytest.mark.parametrize("name", DECISIONS)
def test_the_nearest_picture_that_fooled_is_kept(name: str, on_grid: bool) -> None:
    """Of all the looks that were judged; and it is nearer than the noise that the search began with."""
    table = ATTACKS[name].new(
        pictures(4), classes=CLASSES, on_grid=on_grid, stop=NEVER, sample=torch.arange(4), queries=600
    )
    nearest = torch.full((4,), math.inf)
    farthest = torch.zeros(4)
    always = torch.ones_like(table.done)

    def see(z: Tensor, judged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = look(table, MODEL, z, gradient=False)
        table.observe(z, *seen[:2], judged)
        if on_grid:
            assert torch.equal((z[judged] * 255).round() / 255, z[judged])
        assert isinstance(table, Decision)
        distance = table.distance_of(z)
        hit = judged & table.hits(seen[0])
        nearest.copy_(torch.where(hit, torch.minimum(nearest, distance), nearest))
        farthest.copy_(torch.where(hit, torch.maximum(farthest, distance), farthest))
        return seen

    see(table.candidates(), always)
    table.begin()
    for _ in range(598):
        seen = see(table.points(), table.judged())
        table.move(*seen)
    see(table.candidates(), always)
    assert table.fooled.all()
    assert torch.equal(table.merit, -nearest)
    assert (nearest < 0.7 * farthest).all()


# --- estimated gradients ---------------------------------------------------------------

PIXELS = 432
WEIGHTS = torch.randn(PIXELS, generator=torch.Generator().manual_seed(3))


def _plane(x: Tensor) -> Tensor:
    lead = (x.flatten(1) - 0.5) @ WEIGHTS - 1
    return torch.stack([torch.zeros_like(lead), lead], 1)


def _cosines(attack: type[Estimate], width: int, **options: Any) -> Tensor:
    """[64] cosines of the estimate to the gradient after so many pairs."""
    table = attack.new(
        torch.full((64, 3, 12, 12), 0.5),
        classes=2,
        loss_name="margin",
        label=0,
        stop=NEVER,
        sample=torch.arange(64),
        queries=2 * width + 2,  # the clean image, the pairs, and the last
        **options,
    )
    climb(table, _plane)
    assert (table.estimate.flatten(1).abs().amax(1) > 0).all()
    return torch.nn.functional.cosine_similarity(table.estimate.flatten(1), WEIGHTS[None])


@pytest.mark.parametrize("pairs", [25, 250, 1000])
def test_nes_follows_the_cosine_law(pairs: int) -> None:
    """m antithetic pairs of d pixels: the cosine to the gradient is sqrt(m / (m + d + 1))."""
    found = _cosines(NES, pairs, pairs=pairs).mean().item()
    assert found == pytest.approx(math.sqrt(pairs / (pairs + PIXELS + 1)), abs=0.02)


def test_spsa_estimates_as_well_as_nes() -> None:
    assert _cosines(SPSA, 250, pairs=250).mean() >= math.sqrt(250 / (250 + PIXELS + 1)) - 0.02


@pytest.mark.parametrize(("h", "least"), [(1e-3, 0.999), (1e-4, 0.99)])
def test_differences_take_2_looks_a_pixel_and_give_the_gradient(h: float, least: float) -> None:
    assert _cosines(Differences, PIXELS, h=h).min() >= least


def test_differences_equal_the_gradient_of_a_network() -> None:
    x0 = pictures(2) * 0.5 + 0.25  # off the box's sides
    table = Differences.new(
        x0,
        classes=CLASSES,
        stop=NEVER,
        label=MODEL(x0).argmax(1),
        sample=torch.arange(2),
        queries=2 * PIXELS + 2,
    )
    _, _, gradient = look(table, MODEL, x0)
    climb(table, MODEL)
    cosine = torch.nn.functional.cosine_similarity(table.estimate.flatten(1), gradient.flatten(1))
    assert (cosine >= 0.99).all()
    # What is moved is moved by epsilon along the estimate's sign.
    assert torch.equal(table.x, (x0 + table.epsilon.view(-1, 1, 1, 1) * table.estimate.sign()).clamp(0, 1))


@pytest.mark.parametrize("name", ["nes", "spsa", "differences"])
def test_estimates_are_taken_with_pictures_and_judge_the_iterate_once_a_move(name: str) -> None:
    table = ATTACKS[name].new(
        pictures(3),
        classes=CLASSES,
        on_grid=True,
        stop=NEVER,
        sample=torch.arange(3),
        epsilon=0.1,
        queries=10_000,
    )
    assert isinstance(table, Estimate)
    pairs = int(table.width()[0])
    table.begin()
    for t in range(3 * (2 * pairs + 1)):
        z, judged = table.points(), table.judged()
        assert judged.tolist() == [t % (2 * pairs + 1) == 2 * pairs] * 3
        assert 0 <= z.min() <= z.max() <= 1
        if judged.all():
            assert torch.equal((z * 255).round() / 255, z)
        table.move(*look(table, MODEL, z, gradient=False))


# --- the algorithms, written down plainly ----------------------------------------------


def _hills(x: Tensor) -> Tensor:
    """Two classes; grey is the first, black the second."""
    flat = x.flatten(1)
    lead = (0.5 - flat) @ WEIGHTS.abs() + (9 * flat).sin() @ WEIGHTS - 40
    return torch.stack([torch.zeros_like(lead), lead], 1)


def test_rays_equals_its_loop() -> None:
    x0 = 0.4 + 0.2 * pictures(3)
    table = climb(RayS.new(x0, classes=2, label=0, stop=NEVER, queries=700), _hills)
    assert table.fooled.all()
    for found, clean in zip(table.best, x0, strict=True):
        wanted = loops.rays(lambda x: int(_hills(x[None]).argmax()) == 1, clean, 700, 1e-3)
        assert (found - wanted).abs().max() <= 1e-6
        assert 0 < (found - clean).abs().max() < 0.3


def test_simba_equals_its_loop() -> None:
    """Down, else up, else left; the pixels in the order of the shuffle."""
    x0, queries = pictures(3), 200
    label = MODEL(x0).argmax(1)
    table = SimBA.new(x0, classes=CLASSES, stop=NEVER, sample=torch.arange(3), queries=queries, label=label)
    order = table.draw_image(table.t).flatten(1).argsort(1)
    climb(table, MODEL)
    for row, clean in enumerate(x0):

        def loss(x: Tensor, own: Tensor = label[row]) -> float:
            return float(torch.nn.functional.cross_entropy(MODEL(x[None]), own[None]))

        x, top = loops.simba(loss, clean, order[row], queries)
        assert table.held_loss[row].item() == pytest.approx(top, abs=1e-4)
        assert ((table.x[row] - x).abs() > 1e-6).sum() <= 1  # the last try is not taken back


def test_simba_tries_every_pixel_before_it_tries_one_again() -> None:
    def flat(x: Tensor) -> Tensor:
        return torch.zeros(len(x), CLASSES).index_fill(1, torch.tensor([0]), 1.0)

    x0 = torch.full((2, 1, 3, 4), 0.5)
    table = SimBA.new(x0, classes=CLASSES, stop=NEVER, sample=torch.arange(2), queries=100)
    table.observe(x0, *look(table, flat, x0, gradient=False)[:2], torch.ones_like(table.done))
    table.begin()
    tried = []
    for _ in range(48):
        tried.append((table.points() != x0).flatten(1).long().argmax(1))
        table.move(*look(table, flat, table.points(), gradient=False))
    for row in torch.stack(tried, 1).tolist():
        assert row[0::2] == row[1::2]  # down, then up
        assert sorted(row[0:24:2]) == sorted(row[24::2]) == list(range(12))
