"""Every attack keeps its promises, whatever its parameters: the ball, the box, the grid, the best so far."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iguana_server import ops
from iguana_server.attacks.base import FIRST_SUCCESS, NEVER, Attack
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.attacks.losses import LOSSES, lead
from tests.attacks.alone import climb
from tests.nets import CLASSES, pictures, toy

MODEL, ROWS = toy(), 3
QUERIES = 60  # of an attack that counts them, where the test does not vary them
NAMES = st.sampled_from(sorted(ATTACKS))


def _options(attack: type[Attack], data: st.DataObject) -> dict[str, Any]:
    """Parameters anywhere in their ranges (small, as a caller's are), one value a row."""
    options: dict[str, Any] = {}
    for name, p in attack.parameters().items():
        if name == "steps":
            options[name] = data.draw(st.integers(1, 6), label=name)
        elif name == "queries":
            options[name] = data.draw(st.integers(int(p.low), int(p.low) + 12), label=name)
        elif name == "random_start":
            options[name] = data.draw(st.booleans(), label=name)
        elif p.kind in {"choice", "int"}:
            options[name] = data.draw(st.integers(int(p.low), min(int(p.high), 3)), label=name)
        elif p.kind == "float":
            high = min(p.high, p.low + (3.0 if attack.norm == "l2" else 0.25))
            high = torch.tensor(high).item()  # a float32
            values = data.draw(
                st.lists(
                    st.floats(p.low, high, width=32, allow_subnormal=False), min_size=ROWS, max_size=ROWS
                ),
                label=name,
            )
            options[name] = torch.tensor(values)
    if attack.name == "rfgsm":
        options["alpha"] = torch.minimum(options["alpha"], options["epsilon"])
    return options


def _short(attack: type[Attack]) -> dict[str, Any]:
    """Few looks, for those that make many."""
    known = attack.parameters()
    options: dict[str, Any] = {"queries": QUERIES} if "queries" in known else {}
    many = attack.norm == "none" or not known.keys().isdisjoint({"copies", "neighbours"})
    options |= {"copies": 3} if "copies" in known else {}
    return options | {"steps": 5} if "steps" in known and many else options


def _distance(table: Attack) -> torch.Tensor:
    change = (table.best - table.x0).abs()
    return change.amax((1, 2, 3)) if table.norm == "linf" else ops.l2_distance(table.best, table.x0)


@settings(max_examples=150)
@given(name=NAMES, on_grid=st.booleans(), keep_last=st.booleans(), seed=st.integers(0, 2**62), data=st.data())
def test_attack_stays_in_ball_and_box_and_on_the_grid(
    name: str, on_grid: bool, keep_last: bool, seed: int, data: st.DataObject
) -> None:
    attack = ATTACKS[name]
    x0 = pictures(ROWS, seed % 1000)
    options = _options(attack, data)
    loss_name = data.draw(st.sampled_from(sorted(LOSSES)), label="loss")
    table = attack.new(
        x0,
        classes=CLASSES,
        loss_name=loss_name,
        on_grid=on_grid,
        stop=NEVER,
        keep_last=keep_last,
        seed=seed,
        sample=torch.arange(ROWS),
        **options,
    )
    climb(table, MODEL)
    assert table.finite.all()
    assert 0 <= table.best.min() <= table.best.max() <= 1
    if table.norm != "none":
        # An epsilon a thousandth of a grey level short of a whole number of them is taken for it (ops.grid_).
        forgiven = 1e-6 + on_grid * 1e-3 / 255
        assert (_distance(table) <= table.radius() * (1 + 1e-6) + forgiven).all()
    if on_grid:
        assert torch.equal((table.best * 255).round() / 255, table.best)


@pytest.mark.parametrize("on_grid", [False, True], ids=["float", "grid"])
@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.norm != "none"])
def test_epsilon_0_returns_the_image_bit_for_bit(name: str, on_grid: bool) -> None:
    x0 = pictures(ROWS)
    options: dict[str, Any] = _short(ATTACKS[name]) | ({"alpha": 0.0} if name == "rfgsm" else {})
    table = ATTACKS[name].new(
        x0, classes=CLASSES, on_grid=on_grid, keep_last=True, epsilon=0.0, stop=NEVER, **options
    )
    assert torch.equal(climb(table, MODEL).best, x0)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_the_answer_is_what_the_model_says_of_the_delivered_picture(name: str) -> None:
    """Success, margin and loss belong to `best`: looked at again, they are the same."""
    table = ATTACKS[name].new(
        pictures(8),
        classes=CLASSES,
        on_grid=True,
        stop=FIRST_SUCCESS,
        sample=torch.arange(8),
        **_short(ATTACKS[name]),
    )
    climb(table, MODEL)
    logits = MODEL(table.best)
    assert torch.equal(logits, table.after)
    assert torch.equal(lead(logits, table.label), table.margin)
    assert torch.equal(lead(logits, table.label) > 0, table.fooled)
    assert torch.equal(table.before, MODEL(table.x0))


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_the_same_seed_gives_the_same_bits_and_another_does_not(name: str) -> None:
    def run(seed: int) -> torch.Tensor:
        options: dict[str, Any] = (
            {"random_start": True} if "random_start" in ATTACKS[name].parameters() else _short(ATTACKS[name])
        )
        if name == "forge":
            options["start"] = torch.tensor(1)
        if name == "patch":
            options = {"copies": 2, "steps": 3}
        options |= _short(ATTACKS[name])
        table = ATTACKS[name].new(
            pictures(4),
            classes=CLASSES,
            seed=seed,
            sample=torch.arange(4),
            keep_last=True,
            stop=NEVER,
            **options,
        )
        return climb(table, MODEL).best

    assert torch.equal(run(5), run(5))
    random = name in {"rfgsm", "noise", "pgd", "pgdl2", "apgd", "forge"}
    random |= name in {"difgsm", "vmifgsm", "vnifgsm", "apgdt", "eot", "patch"}
    random |= name in {"square", "squarel2", "nes", "spsa", "simba", "hopskipjump", "boundary", "rays"}
    assert torch.equal(run(5), run(6)) is not random


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_a_finished_row_keeps_its_answer(name: str) -> None:
    """Spare steps do no harm."""
    attack = ATTACKS[name]
    table = attack.new(
        pictures(8), classes=CLASSES, stop=FIRST_SUCCESS, sample=torch.arange(8), **_short(attack)
    )
    climb(table, MODEL)
    table.done.fill_(True)
    best, margin = table.best.clone(), table.margin.clone()
    climb(table, MODEL)
    assert torch.equal(table.best, best)
    assert torch.equal(table.margin, margin)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_columns_are_changed_in_place(name: str) -> None:
    """A table may be a view of a lane: no column is replaced by another tensor."""
    table = ATTACKS[name].new(pictures(4), classes=CLASSES, stop=NEVER, **_short(ATTACKS[name]))
    before = {column: getattr(table, column).data_ptr() for column in table.columns()}
    climb(table, MODEL)
    assert {column: getattr(table, column).data_ptr() for column in table.columns()} == before


def test_a_step_smaller_than_the_grid_is_not_lost() -> None:
    """Ten steps of a fifth of a grey level: the rounded iterate alone would never move."""
    options: dict[str, Any] = {"epsilon": 2 / 255, "alpha": 0.2 / 255, "steps": 10, "stop": NEVER}
    table = ATTACKS["pgd"].new(pictures(8), classes=CLASSES, on_grid=True, **options)
    climb(table, MODEL)
    assert ((table.best - table.x0).abs().amax((1, 2, 3)) > 1.5 / 255).all()


def test_a_zero_gradient_is_counted() -> None:
    """A model that has masked its gradients."""

    def flat(x: torch.Tensor) -> torch.Tensor:
        return MODEL(x.round() + 0 * x)

    table = ATTACKS["pgd"].new(pictures(3), classes=CLASSES, steps=4, stop=NEVER)
    assert climb(table, flat).zero_gradients.tolist() == [4, 4, 4]


def test_an_attack_that_takes_no_gradient_counts_none() -> None:
    table = ATTACKS["noise"].new(pictures(3), classes=CLASSES, steps=4, stop=NEVER)
    assert climb(table, MODEL).zero_gradients.tolist() == [0, 0, 0]


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 1.0])
def test_an_l2_ball_is_used_up_on_the_grid(epsilon: float) -> None:
    """Also where every change is below half a grey level, which rounding to the nearest would lose."""
    x0 = pictures(4).repeat(1, 1, 4, 4)
    d = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    table = ATTACKS["pgdl2"].new(x0, classes=CLASSES, on_grid=True, epsilon=epsilon)
    ops.l2_step_(table.x, table.x0, d, table.radius(), table.radius())
    z = table.candidates()
    assert torch.equal((z * 255).round() / 255, z)
    reached = ops.l2_distance(z, table.x0)
    assert (reached <= epsilon + 1e-6).all()
    assert (reached >= 0.9 * epsilon).all()
    if epsilon < 0.2:
        assert ((table.x - x0).abs() < 0.5 / 255).float().mean() > 0.9
