"""A row's answer never depends on who shares the batch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from iguana_server import ops
from iguana_server.attacks.base import Attack
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.attacks.mifgsm import MIFGSM
from tests.engine.bench_by_hand import Recorder, job, turn
from tests.nets import CLASSES, pictures, toy

ROWS = 144


def _cases(
    attacks: list[type[Attack]], seed: int, rows: int = ROWS
) -> list[tuple[type[Attack], dict[str, Any]]]:
    """So many rows, each with parameters of its own."""
    draw = random.Random(seed)
    cases = []
    for i in range(rows):
        attack = attacks[i % len(attacks)]
        options: dict[str, Any] = {
            "seed": draw.getrandbits(62),
            "stop": draw.choice([1, 2, 3]),
            "stop_margin": draw.uniform(0, 1),
            "keep_last": draw.random() < 0.5,
            "on_grid": draw.random() < 0.5,
            "targeted": draw.random() < 0.3,
            "loss_name": draw.choice(["cross_entropy", "margin", "dlr", "logit", "l2", "l1"]),
        }
        if options["targeted"]:
            options["label"] = draw.randrange(CLASSES)
        for name, p in attack.parameters().items():
            if name == "steps":
                options[name] = draw.randint(1, 8)
            elif name == "queries":
                options[name] = draw.randint(3, 40)
            elif p.kind in {"bool", "choice", "int"}:
                value = draw.randint(int(p.low), min(int(p.high), 6 if p.kind == "int" else 4))
                options[name] = torch.tensor(value, dtype=attack.columns()[name].dtype)
            elif p.kind == "float" and name != "alpha":
                options[name] = draw.uniform(p.low, min(p.high, 1.5)) * (0.1 if attack.norm == "linf" else 1)
        if "alpha" in attack.parameters():
            options["alpha"] = options.get("epsilon", 0.5) * draw.uniform(0.1, 1)
        cases.append((attack, options))
    return cases


def _run(
    cases: list[tuple[type[Attack], dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, *, together: bool
) -> dict[Any, dict[str, Tensor]]:
    """All rows at their ends: in one crowd, in which they join at different turns, or each alone."""
    model, images = toy(), pictures(len(cases))
    with monkeypatch.context() as patch:
        recorder = Recorder(patch)
        jobs = [
            job(model, attack, images[i : i + 1], f"caller {i}", **options)
            for i, (attack, options) in enumerate(cases)
        ]
        arrivals = [(random.Random(i).randrange(15), one) for i, one in enumerate(jobs)]
        for crowd in [arrivals] if together else [[(0, one)] for one in jobs]:
            turn(model, crowd)
    return recorder.rows


def _differences(one: dict[Any, dict[str, Tensor]], other: dict[Any, dict[str, Tensor]]) -> list[str]:
    assert one.keys() == other.keys()
    return [
        f"{row}: {name}"
        for row, columns in one.items()
        for name, column in columns.items()
        if not torch.equal(column.nan_to_num(7), other[row][name].nan_to_num(7))
    ]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many threads in torch's pool for one test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


async def test_every_column_of_every_row_equals_the_row_run_alone(
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """144 rows of all attacks (with two threads half as many), joining and leaving at different steps, bit for bit."""
    cases = _cases(list(ATTACKS.values()), seed=threads, rows=ROWS // threads)
    together, alone = (_run(cases, monkeypatch, together=choice) for choice in (True, False))
    assert len(together) == len(cases) > len(ATTACKS)
    assert _differences(together, alone) == []


async def test_a_planted_look_at_the_neighbours_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The company test can fail: here the momentum is scaled by the mean over all rows."""

    class Nosy(MIFGSM):
        """MI-FGSM that looks at its neighbours, which sign() hides from the answer."""

        name = "nosy"

        def step(self, logits: Tensor, loss: Tensor, grad: Tensor) -> None:
            self.momentum.mul_(self.decay.view(-1, 1, 1, 1)).add_(grad / grad.abs().mean().clamp_min(1e-30))
            ops.linf_step_(self.x, self.x0, self.momentum, self.epsilon, self.alpha)

    cases = _cases([Nosy], seed=2)
    found = _differences(_run(cases, monkeypatch, together=True), _run(cases, monkeypatch, together=False))
    assert any(name.endswith("momentum") for name in found)
