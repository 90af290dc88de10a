"""The codec's threads: no caller holds another up, and none works for a caller that left."""

from __future__ import annotations

import asyncio
import io
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from PIL import Image

from iguana.v1 import attack_pb2, classify_pb2, image_pb2, manifest_pb2
from iguana_server.attacks.base import MARGIN
from iguana_server.errors import InvalidArgument, Overloaded
from iguana_server.rpc.bounds import MOST_FILES
from iguana_server.rpc.codec import Codec
from iguana_server.rpc.intake import Intake
from iguana_server.rpc.origin import Origin
from tests.rpc.service import LIMITS, SHAPE, small_model, tensors

ORIGIN = Origin("iguana.v1.ClassifyService/Classify", "me", math.inf, None)


class Slow:
    """A reader of images that waits for the test's nod before each."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.nods = threading.Semaphore(0)

    def __call__(self, image: image_pb2.Image, field: str, *_: object) -> torch.Tensor:
        assert self.nods.acquire(timeout=10)
        self.read.append(field)
        return torch.zeros(SHAPE)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    reader = Slow()
    monkeypatch.setattr("iguana_server.rpc.codec.to_pixels", reader)
    return reader


@pytest.fixture
def codec() -> Iterator[Codec]:
    with ThreadPoolExecutor(1) as decoders:
        yield Codec({"small": small_model()}, Intake(LIMITS, decoders))


def request(n: int) -> classify_pb2.ClassifyRequest:
    return classify_pb2.ClassifyRequest(model="small", images=tensors(n))


async def test_large_request_lets_small_ones_pass(codec: Codec, slow: Slow) -> None:
    large = asyncio.create_task(codec.to_classify(request(6), ORIGIN, "large."))
    await asyncio.sleep(0)
    small = asyncio.create_task(codec.to_classify(request(1), ORIGIN, "small."))
    slow.nods.release(7)
    await asyncio.gather(large, small)
    assert slow.read.index("small.images[0]") <= 4
    assert len(slow.read) == 7


async def test_images_of_a_caller_that_left_are_not_read(codec: Codec, slow: Slow) -> None:
    reading = asyncio.create_task(codec.to_classify(request(6), ORIGIN))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    slow.nods.release(6)
    await codec.to_classify(request(2), ORIGIN, "next.")  # two: one alone is read on the event loop
    assert slow.read == ["images[0]", "next.images[0]", "next.images[1]"]


async def test_plan_holds_what_was_asked(codec: Codec) -> None:
    start = attack_pb2.FORGE_START_REFERENCE
    asked = attack_pb2.AttackRequest(
        model="small",
        images=tensors(3),
        goals=[
            attack_pb2.Goal(untargeted=attack_pb2.Untargeted()),
            attack_pb2.Goal(untargeted=attack_pb2.Untargeted(label=attack_pb2.ClassRef(index=0))),
            attack_pb2.Goal(targeted=attack_pb2.Targeted(target=attack_pb2.ClassRef(name="Agama"))),
        ],
        seed=2**64 - 2,
        stop_on=attack_pb2.STOP_ON_MARGIN,
        stop_margin=2.5,
        keep=attack_pb2.KEEP_LAST,
        loss=attack_pb2.LOSS_L1,
        determinism=manifest_pb2.DETERMINISM_FAST,
        forge=attack_pb2.Forge(start=[attack_pb2.FORGE_START_UNSPECIFIED, start, start], steps=[1, 2, 3]),
    )
    origin = Origin("iguana.v1.AttackService/Attack", "somebody", 123.0, object())
    order = await codec.to_attack(asked, origin, report_every=7)
    job = order.acts[0](range(len(order.images)))
    plan = job.plan
    assert (job.method, job.caller, job.deadline, job.span) == (
        origin.method,
        origin.caller,
        origin.deadline,
        origin.span,
    )
    assert (job.model, job.strict) == ("small", False)
    assert (plan.loss_name, plan.on_grid, plan.restarts) == ("l1", True, 1)
    assert (plan.time_limit_s, plan.report_every) == (None, 7)
    columns = {name: column.tolist() for name, column in plan.columns.items() if name != "reference"}
    assert columns == {
        "label": [-1, 0, 4],
        "targeted": [False, False, True],
        "seed": [-2] * 3,
        "stop": [MARGIN] * 3,
        "stop_margin": [2.5] * 3,
        "keep_last": [True] * 3,
        "start": [0, 2, 2],
        "penalty": [pytest.approx(0.01)] * 3,
        "rate": [pytest.approx(0.01)] * 3,
        "steps": [1, 2, 3],
        "optimizer": [0] * 3,
    }
    assert torch.equal(plan.columns["reference"], job.images)


async def test_classification_is_asked_for_by_its_caller(codec: Codec) -> None:
    origin = Origin("iguana.v1.ClassifyService/Classify", "somebody", 123.0, object())
    job = (await codec.to_classify(request(2), origin)).job
    assert (job.method, job.caller, job.deadline, job.span, job.strict) == (
        origin.method,
        origin.caller,
        origin.deadline,
        origin.span,
        True,
    )


async def test_time_limit_counts_from_the_arrival(codec: Codec, slow: Slow) -> None:
    asked = attack_pb2.AttackRequest(
        model="small", images=tensors(2), time_limit_s=0.5, pgd=attack_pb2.Pgd(steps=[2])
    )
    reading = asyncio.create_task(codec.to_attack(asked, ORIGIN))
    await asyncio.sleep(0.2)
    slow.nods.release(2)
    left = (await reading).acts[0]([0]).plan.time_limit_s
    assert left is not None
    assert 0 <= left <= 0.3


async def test_files_of_a_request_are_bounded_together(codec: Codec) -> None:
    """A file of one colour is small however many pixels it has."""
    target = io.BytesIO()
    side = math.isqrt(min(LIMITS.max_pixels, LIMITS.max_side**2))
    Image.new("L", (side, side)).save(target, "PNG")
    image = image_pb2.Image(encoded=target.getvalue())
    n = MOST_FILES * LIMITS.max_pixels // side**2
    await codec.to_classify(classify_pb2.ClassifyRequest(model="small", images=[image] * n), ORIGIN)
    with pytest.raises(InvalidArgument, match=r"images: want at most \d+ pixels in all files, got more"):
        await codec.to_classify(classify_pb2.ClassifyRequest(model="small", images=[image] * (n + 1)), ORIGIN)


async def test_images_in_hand_are_bounded_and_let_go() -> None:
    with ThreadPoolExecutor(1) as decoders:
        room = 4 * math.prod(SHAPE) * 3
        tight = Codec({"small": small_model()}, Intake(replace(LIMITS, max_image_memory=room), decoders))
        order = await tight.to_classify(request(2), ORIGIN)
        with pytest.raises(Overloaded):
            await tight.to_classify(request(2), ORIGIN)
        del order
        while tight._intake.memory.used:  # a thread that decoded may still be letting go
            await asyncio.sleep(0.01)
        await tight.to_classify(request(2), ORIGIN)


async def test_work_that_could_never_wait_is_refused_before_it_is_decoded(slow: Slow) -> None:
    attack = attack_pb2.AttackRequest(model="small", images=tensors(3), pgd=attack_pb2.Pgd(steps=[50]))
    with ThreadPoolExecutor(1) as decoders:
        limits = replace(LIMITS, max_waiting_cost=100 * math.prod(SHAPE))
        small = Codec({"small": small_model()}, Intake(limits, decoders))
        with pytest.raises(InvalidArgument, match=r"^request.images: want at most \d+ pixels x steps"):
            await small.to_attack(attack, ORIGIN, "request.")
    assert slow.read == []
