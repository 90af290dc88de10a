"""The engine on a CUDA device: the answers are the table's, in any company, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

import pytest
import torch

from iguana_server.attacks.base import NEVER
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.engine import AttackJob, Engine, Looked
from iguana_server.models.probe import probe
from tests.attacks.alone import climb
from tests.cuda import needs_cuda
from tests.engine.bench_by_hand import job
from tests.engine.test_engine import Steps, _forged, _looks
from tests.nets import CLASSES, pictures, toy

pytestmark = needs_cuda

DEVICE = torch.device("cuda")
KINDS = {"fgsm": 1, "pgd": 8, "mifgsm": 8, "apgd": 8}  # and the moves that they make here


@pytest.fixture
def engine() -> Iterator[Engine]:
    """With the toy as it would be served: probed, and STRICT passes of the sizes that this device allows."""
    model = toy(device=DEVICE)
    model.sizes = probe(model).sizes
    with Engine({"toy": model}, meter=Steps()) as started:
        yield started


def _job(kind: str, n: int, **options: Any) -> AttackJob:
    options = {"epsilon": 8 / 255, "steps": KINDS[kind], "stop": NEVER} | options
    return job(toy(), ATTACKS[kind], pictures(n, seed=n), "me", **options)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_attack_equals_the_table_run_by_hand(kind: str, engine: Engine) -> None:
    """One request of a bucket's size, so that even the passes are the same."""
    n = engine.models["toy"].spec.bucket
    answers = _forged(await engine.run(_job(kind, n, on_grid=True)))
    images = pictures(n, seed=n).to(DEVICE)
    values: dict[str, Any] = {"epsilon": 8 / 255, "steps": KINDS[kind], "stop": NEVER}
    table = ATTACKS[kind].new(images, classes=CLASSES, on_grid=True, sample=torch.arange(n), **values)
    climb(table, engine.models["toy"])
    assert torch.equal(torch.stack([a.image for a in answers]), table.best.cpu())
    assert [a.fooled for a in answers] == table.fooled.tolist()
    assert [a.margin for a in answers] == table.margin.tolist()


async def test_classify_answers_what_the_model_says(engine: Engine) -> None:
    images = pictures(20)
    logits = torch.stack([a.logits for a in await engine.run(_looks(images)) if isinstance(a, Looked)])
    torch.testing.assert_close(
        logits, engine.models["toy"](images.to(DEVICE)).cpu(), atol=2e-3, rtol=0
    )  # TF32, and passes of another size


async def test_rows_in_company_equal_rows_alone(engine: Engine) -> None:
    """STRICT, bit for bit; requests of unlike size, attack, loss and goal come at once or one by one."""

    def jobs() -> list[AttackJob]:
        losses = enumerate(("cross_entropy", "margin", "dlr", "l2", "l1", "logit"), 1)
        return [_job(kind, n, loss_name=loss, stop=1 + n % 3) for n, loss in losses for kind in KINDS]

    alone = [await engine.run(one) for one in jobs()]
    together = await asyncio.gather(*(engine.run(one) for one in jobs()))
    pairs = list(zip(_forged([*chain(*alone)]), _forged([*chain(*together)]), strict=True))
    assert len(pairs) == len(KINDS) * sum(range(7))
    for a, b in pairs:
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.after, b.after)
        assert (a.margin, a.loss, a.step, a.forward) == (b.margin, b.loss, b.step, b.forward)


async def test_cancelled_rows_leave_within_one_step(engine: Engine) -> None:
    meter = cast(Steps, engine._meter)
    task = asyncio.create_task(engine.run(_job("pgd", 4, steps=10_000)))
    while len(meter.rows) < 3:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    seen = len(meter.rows)
    await asyncio.sleep(0.3)
    assert len(meter.rows) - seen <= 1
    assert meter.given_up == ["running"]


async def test_memory_of_the_device_does_not_grow_with_jobs(engine: Engine) -> None:
    allocated = []
    for _ in range(51):
        await engine.run(_job("pgd", 20))
        gc.collect()
        allocated.append(torch.cuda.memory_allocated())
    assert max(allocated[1:]) <= allocated[0], allocated
