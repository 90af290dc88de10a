"""The numbers of the lectures, in closed form."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server.attacks.base import NEVER
from iguana_server.attacks.catalog import ATTACKS
from tests.attacks.alone import climb

W = torch.tensor([1.0, 3, -1, 2, 2, 3])
X = torch.tensor([1.0, -1, 2, 0, 3, -2])
LOW, HIGH = -4.0, 4.0  # the example's numbers are no pixels: map [-4, 4] to [0, 1]


def _to_pixels(x: Tensor) -> Tensor:
    return ((x - LOW) / (HIGH - LOW)).view(1, 1, 1, -1)


def _score(pixels: Tensor) -> Tensor:
    return (pixels.flatten(1) * (HIGH - LOW) + LOW) @ W


def _model(pixels: Tensor) -> Tensor:
    score = _score(pixels)
    return torch.stack([-score / 2, score / 2], 1)


def _attack(name: str, epsilon: float, **more: Any) -> Tensor:
    """The score after the attack, epsilon in the example's units."""
    scale = epsilon / (HIGH - LOW)
    table = ATTACKS[name].new(
        _to_pixels(X), classes=2, loss_name="margin", stop=NEVER, label=0, epsilon=scale, **more
    )
    return _score(climb(table, _model).best)


def test_the_linear_example_goes_from_minus_4_to_plus_1_6() -> None:
    """x + 0.2 w is a step of L2 length 0.2 |w| along the gradient."""
    assert _score(_to_pixels(X)).item() == pytest.approx(-4)
    length = 0.2 * W.norm().item()
    assert _attack("pgdl2", length, alpha=length / (HIGH - LOW), steps=1).item() == pytest.approx(
        1.6, abs=1e-4
    )


def test_a_sign_step_of_0_2_goes_from_minus_4_to_minus_1_6() -> None:
    assert _attack("fgsm", 0.2).item() == pytest.approx(-1.6, abs=1e-4)


@pytest.mark.parametrize(("name", "least"), [("pgdl2", 4 / math.sqrt(28)), ("fgsm", 1 / 3)])
def test_the_least_change_that_reaches_the_boundary(name: str, least: float) -> None:
    """0.7559 in L2, 1/3 in Linf: just under it the score stays below 0, just over it is above."""
    assert least == pytest.approx({"pgdl2": 0.7559, "fgsm": 0.3333}[name], abs=1e-4)
    more = {"alpha": least / (HIGH - LOW) * 2, "steps": 2} if name == "pgdl2" else {}
    assert _attack(name, least * 0.999, **more).item() < 0
    assert _attack(name, least * 1.001, **more).item() > 0


@pytest.mark.parametrize("n", [100, 1_000, 10_000])
def test_a_sign_step_gains_in_proportion_to_the_dimension(n: int) -> None:
    """The gain is epsilon |w|_1, near epsilon n sqrt(2 / pi) for normal weights."""
    w = torch.randn(n, generator=torch.Generator().manual_seed(0))
    x0 = torch.full((1, 1, 1, n), 0.5)

    def model(x: Tensor) -> Tensor:
        score = (x - x0).flatten(1) @ w - 1
        return torch.stack([-score / 2, score / 2], 1)

    table = climb(
        ATTACKS["fgsm"].new(
            x0, classes=2, loss_name="margin", stop=NEVER, label=0, keep_last=True, epsilon=0.01
        ),
        model,
    )
    gain = ((table.best - x0).flatten() @ w).item()
    assert gain == pytest.approx(0.01 * w.abs().sum().item(), rel=1e-4)
    assert gain == pytest.approx(0.01 * n * math.sqrt(2 / math.pi), rel=3 / math.sqrt(n))


def test_a_step_of_half_along_the_sign_takes_5_percent_to_88() -> None:
    """CS231n: w = (-1, -1, 1, -1, 1, -1, 1, 1, -1, 1), score -3, after x + 0.5 sign(w) score 2."""
    w = torch.tensor([-1.0, -1, 1, -1, 1, -1, 1, 1, -1, 1])
    x = torch.tensor([2.0, -1, 3, -2, 2, 2, 1, -4, 5, 1])
    assert torch.sigmoid(w @ x).item() == pytest.approx(0.0474, abs=1e-4)
    scale = 20.0  # pixels are (x + 10) / 20

    def model(pixels: Tensor) -> Tensor:
        score = (pixels.flatten(1) * scale - 10) @ w
        return torch.stack([torch.zeros_like(score), score], 1)

    start = ((x + 10) / scale).view(1, 1, 1, -1)
    table = climb(ATTACKS["fgsm"].new(start, classes=2, label=0, stop=NEVER, epsilon=0.5 / scale), model)
    assert table.after.softmax(1)[0, 1].item() == pytest.approx(0.8808, abs=1e-4)
