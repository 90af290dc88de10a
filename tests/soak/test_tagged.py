"""Many calls of many callers at once: everybody gets his own answer, and every call is counted once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from iguana.v1 import (
    attack_pb2,
    attack_pb2_grpc,
    classify_pb2,
    classify_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from iguana_server.attacks.catalog import ATTACKS, CATALOG
from iguana_server.models import catalog
from tests.soak.contract import MODEL, pixels, tensor
from tests.soak.figures import Figures, ms
from tests.soak.scale import SCALE, SEED
from tests.soak.served import Served, serve
from tests.soak.tagged import EXACT, Classification, Forgery, Item, Sighting, strangers

# Few places in flight and a short queue: some calls are refused.
CROWDED = ("--engine.max_rows", "32", "--limits.max_waiting_cost", str(10_000_000))
CALLERS, EACH = 8, 8  # callers, each with a connection; calls of one at once
ENDURED_S = (0.2, 0.5)  # until a call is cancelled, or its deadline: the server has it by then
LOST = ("CANCELLED", "DEADLINE_EXCEEDED")  # what a caller may see of a call that the server has answered
_HEALTH = "grpc.health.v1.Health/Check"
MIX = {
    "classify": 32,
    "stream_classify": 10,
    "attack": 22,
    "watch_attack": 9,
    "stream_attack": 8,
    "list_models": 2,
    "list_attacks": 2,
    "check": 3,
    "invalid": 3,
    "unknown": 1,
    "cancelled": 4,
    "late": 4,
}


@dataclass
class Run:
    """What was sent, and what became of it."""

    sent: Counter[str] = field(default_factory=Counter)  # by method
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)  # by method and code
    items: Counter[str] = field(default_factory=Counter)  # of pipelines, by code
    refused: Counter[str] = field(default_factory=Counter)  # by why
    faults: list[str] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    overshoot_s: list[float] = field(default_factory=list)  # of deadlines

    def judge(self, item: Item, response: Any) -> None:
        """Look at an answer."""
        self.faults += item.faults(response)
        self.sightings += item.sightings(response)

    def expect(self, text: str, *words: str) -> None:
        """A refusal must quote what is the call's own."""
        self.faults += [f"{word}: not in {text!r}" for word in words if word not in text]


class Caller:
    """One connection, and calls of every kind."""

    def __init__(self, channel: grpc.aio.Channel, name: str, run: Run, tags: Iterator[int]) -> None:
        """Note everything in `run`; each request takes the next of the tags."""
        self._classifier = classify_pb2_grpc.ClassifyServiceStub(channel)
        self._attacker = attack_pb2_grpc.AttackServiceStub(channel)
        self._model = model_pb2_grpc.ModelServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)
        self._run, self._tags, self._metadata = run, tags, (("iguana-caller", name),)

    async def call(self, kind: str, draw: random.Random) -> None:
        """Make one call of this kind and see it to its end."""
        await getattr(self, f"_{kind}")(draw)

    async def _end(self, call: Any, method: str) -> str:
        """Note how a call ended; return the code's name."""
        code: str = (await call.code()).name
        name = method if method == _HEALTH else f"iguana.v1.{method}"
        self._run.sent[name] += 1
        self._run.ended[name, code] += 1
        if code == "RESOURCE_EXHAUSTED":
            keys = [key for key, _ in await call.trailing_metadata()]
            self._run.expect(" ".join(keys), "grpc-status-details-bin")
            self._run.refused[
                re.sub(r"[0-9.]+( \+ [0-9]+)?( s)?", "N", (await call.details()).partition(":")[2])
            ] += 1
        return code

    async def _unary(self, make: Callable[..., Any], request: Any, method: str) -> Any:
        call = make(request, metadata=self._metadata)
        code = await self._end(call, method)
        return await call if code == "OK" else None

    async def _classify(self, _: random.Random) -> None:
        item = Classification(next(self._tags))
        answer = await self._unary(self._classifier.Classify, item.request, "ClassifyService/Classify")
        if answer is not None:
            self._run.judge(item, answer)

    async def _attack(self, _: random.Random) -> None:
        item = Forgery(next(self._tags))
        answer = await self._unary(self._attacker.Attack, item.request, "AttackService/Attack")
        if answer is not None:
            self._run.judge(item, answer)

    async def _watch_attack(self, _: random.Random) -> None:
        item = Forgery(next(self._tags))
        request = attack_pb2.WatchAttackRequest(request=item.request)
        call = self._attacker.WatchAttack(request, metadata=self._metadata)
        events = [event async for event in _read(call)]
        if await self._end(call, "AttackService/WatchAttack") == "OK":
            results = [event.result for event in events if event.HasField("result")]
            summary = events[-1].summary
            self._run.judge(
                item,
                attack_pb2.AttackResponse(
                    results=sorted(results, key=lambda result: result.sample), manifest=summary.manifest
                ),
            )
            counted = summary.fooled + summary.held + summary.already + summary.failed
            if counted != len(results):
                self._run.faults.append(f"{item.tag}: the summary counts {counted}")

    async def _stream_classify(self, draw: random.Random) -> None:
        items = {f"c{(tag := next(self._tags))}": Classification(tag) for _ in range(draw.randint(2, 4))}
        sent = [
            classify_pb2.StreamClassifyRequest(id=name, request=item.request) for name, item in items.items()
        ]
        call = self._classifier.StreamClassify(_each(sent), metadata=self._metadata)
        await self._pipeline(call, items, "ClassifyService/StreamClassify")

    async def _stream_attack(self, draw: random.Random) -> None:
        items = {f"a{(tag := next(self._tags))}": Forgery(tag) for _ in range(draw.randint(2, 3))}
        sent = [attack_pb2.StreamAttackRequest(id=name, request=item.request) for name, item in items.items()]
        call = self._attacker.StreamAttack(_each(sent), metadata=self._metadata)
        await self._pipeline(call, items, "AttackService/StreamAttack")

    async def _pipeline(self, call: Any, items: dict[str, Any], method: str) -> None:
        replies = [reply async for reply in _read(call)]
        if await self._end(call, method) != "OK":
            return
        if sorted(reply.id for reply in replies) != sorted(items):
            self._run.faults.append(f"{sorted(items)}: answered were {[reply.id for reply in replies]}")
            return
        for reply in replies:
            if reply.HasField("response"):
                self._run.items["OK"] += 1
                self._run.judge(items[reply.id], reply.response)
            else:
                self._run.items[_code(reply.failure.code)] += 1

    async def _list_models(self, _: random.Random) -> None:
        request = model_pb2.ListModelsRequest()
        answer = await self._unary(self._model.ListModels, request, "ModelService/ListModels")
        if [model.name for model in answer.models] != [MODEL]:
            self._run.faults.append(f"models: {answer}")

    async def _list_attacks(self, _: random.Random) -> None:
        request = model_pb2.ListAttacksRequest()
        answer = await self._unary(self._model.ListAttacks, request, "ModelService/ListAttacks")
        if [attack.name for attack in answer.attacks] != list(CATALOG):
            self._run.faults.append(f"attacks: {answer}")

    async def _check(self, _: random.Random) -> None:
        answer = await self._unary(self._health.Check, health_pb2.HealthCheckRequest(), _HEALTH)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            self._run.faults.append(f"health: {answer}")

    async def _invalid(self, _: random.Random) -> None:
        tag = next(self._tags)
        wrong = np.float32(2 + tag / 1000)
        request = attack_pb2.AttackRequest(model=MODEL, images=[tensor(pixels(1)[0])])
        request.pgd.epsilon.append(float(wrong))
        call = self._attacker.Attack(request, metadata=self._metadata)
        if await self._end(call, "AttackService/Attack") != "RESOURCE_EXHAUSTED":
            self._run.expect(await call.details(), "pgd.epsilon", f"[{wrong!s}]")

    async def _unknown(self, _: random.Random) -> None:
        name = f"ghost-{next(self._tags)}"
        request = classify_pb2.ClassifyRequest(model=name, images=[tensor(pixels(1)[0])])
        call = self._classifier.Classify(request, metadata=self._metadata)
        await self._end(call, "ClassifyService/Classify")
        self._run.expect(await call.details(), name)

    async def _cancelled(self, draw: random.Random) -> None:
        call, method = await self._long(draw)
        await asyncio.sleep(draw.uniform(*ENDURED_S))
        call.cancel()
        await self._end(call, method)

    async def _late(self, draw: random.Random) -> None:
        deadline_s = draw.uniform(*ENDURED_S)
        began = time.monotonic()
        call, method = await self._long(draw, deadline_s)
        if await self._end(call, method) == "DEADLINE_EXCEEDED":
            self._run.overshoot_s.append(time.monotonic() - began - deadline_s)

    async def _long(self, draw: random.Random, within_s: float | None = None) -> tuple[Any, str]:
        """Begin a call that takes longer than anybody waits."""
        request = attack_pb2.AttackRequest(
            model=MODEL, images=map(tensor, pixels(4)), stop_on=attack_pb2.STOP_ON_NEVER
        )
        request.pgd.steps.append(1000)
        extra: dict[str, Any] = {"metadata": self._metadata, "timeout": within_s}
        method = draw.choice(("Attack", "WatchAttack", "StreamAttack"))
        call: Any
        if method == "Attack":
            call = self._attacker.Attack(request, **extra)
        elif method == "WatchAttack":
            call = self._attacker.WatchAttack(attack_pb2.WatchAttackRequest(request=request), **extra)
        else:
            call = self._attacker.StreamAttack(**extra)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # over already
                await call.write(attack_pb2.StreamAttackRequest(id="long", request=request))
        return call, f"AttackService/{method}"


async def _each(messages: Sequence[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message


async def _read(call: Any) -> AsyncIterator[Any]:
    """The answers of a stream; how it ended is its code."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for message in call:
            yield message


def _code(number: int) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


async def _send(served: Served, run: Run, figures: Figures) -> None:
    draw = random.Random(SEED)
    kinds = iter(enumerate(draw.choices(list(MIX), list(MIX.values()), k=SCALE.tagged - 3 * CALLERS)))
    tags = count(1)

    async def work(caller: Caller, own: random.Random) -> None:
        for number, kind in kinds:
            await caller.call(kind, own)
            figures.tell("tagged calls", number, SCALE.tagged)

    options = (("grpc.enable_retries", 0),)
    channels = [
        grpc.aio.insecure_channel(served.address, options=(*options, ("grpc.channel_id", i)))
        for i in range(CALLERS)
    ]
    for channel in channels:
        await channel.channel_ready()
    callers = [Caller(channel, f"caller-{i}", run, tags) for i, channel in enumerate(channels)]
    for kind in ("classify", "attack", "watch_attack"):  # what is first of its kind takes longer
        for caller in callers:
            await caller.call(kind, draw)
    async with asyncio.TaskGroup() as group:
        for i, caller in enumerate(callers):
            for k in range(EACH):
                group.create_task(work(caller, random.Random(f"{SEED} {i} {k}")))
    for channel in channels:
        await channel.close()


async def test_everybody_gets_his_own_answer_and_every_call_is_counted(
    tmp_path_factory: pytest.TempPathFactory, figures: Figures
) -> None:
    run = Run()
    with serve(tmp_path_factory.mktemp("crowded") / "log", *CROWDED) as served:
        began = time.monotonic()
        await _send(served, run, figures)
        seconds = time.monotonic() - began
        gauges = await asyncio.to_thread(served.rest)
        counts = Counter(served.counts())
        served.check_sound()

    wrong, error, nearest = strangers(catalog.load(MODEL), run.sightings)
    codes: Counter[str] = Counter()
    for (_, code), n in run.ended.items():
        codes[code] += n
    figures.note("tagged: calls, seconds", f"{run.sent.total()}, {seconds:.0f} s")
    figures.note("tagged: as the callers saw them", dict(codes.most_common()))
    figures.note("tagged: items of pipelines", dict(run.items.most_common()))
    figures.note("tagged: refused", dict(run.refused))
    figures.note("tagged: pictures recognised", len(run.sightings))
    figures.note("tagged: mix-ups", len(run.faults) + len(wrong), "0")
    figures.note("tagged: largest error, nearest two pictures (logits)", f"{error:.1e}, {nearest:.1e}")
    figures.note("tagged: sent - histogram", run.sent.total() - counts.total(), "0")
    figures.note("tagged: gauges at the end", gauges, "0")
    if run.overshoot_s:
        figures.note("tagged: deadlines overshot, p50 / p95 / p99 / max", ms(run.overshoot_s))

    assert not run.faults + wrong
    assert nearest > 2 * EXACT
    assert codes.total() == SCALE.tagged
    assert set(codes) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", *LOST}
    assert set(run.items) <= {"OK", "RESOURCE_EXHAUSTED"}
    # A call that is given up may never have left a machine that was busy; whatever the server saw, it counted.
    missing = {
        method: n - sum(k for (of, _), k in counts.items() if of == method) for method, n in run.sent.items()
    }
    given_up = {method: sum(run.ended[method, lost] for lost in LOST) for method in run.sent}
    assert all(0 <= missing[method] <= given_up[method] for method in missing), missing
    assert sum(missing.values()) <= 1 + sum(given_up.values()) // 100, missing
    # A call may be answered in the moment in which its caller leaves: that alone is counted otherwise.
    for method, code in run.ended.keys() | counts.keys():
        assert abs(run.ended[method, code] - counts[method, code]) <= given_up[method], (method, code)
    assert not any(gauges.values())
    if SCALE.tagged >= 10_000:
        assert all(codes[code] for code in ("RESOURCE_EXHAUSTED", *LOST))


async def test_a_mix_up_would_be_seen(served: Served) -> None:
    """The checks that find no mix-up above do find one: answers of neighbours, crossed."""
    run, model = Run(), catalog.load(MODEL)
    async with grpc.aio.insecure_channel(served.address) as channel:
        classify = classify_pb2_grpc.ClassifyServiceStub(channel)
        attack = attack_pb2_grpc.AttackServiceStub(channel)
        looks = [Classification(tag) for tag in (3, 6)]  # of one picture each
        for item, other in zip(looks, reversed(looks), strict=True):
            run.judge(item, await classify.Classify(other.request))
        wrong, _, _ = strangers(model, run.sightings)
        assert len(wrong) == 4  # both: not its own, and nearer to the other's
        n = len(ATTACKS)
        for tag in range(1, 1 + n):
            theirs = await attack.Attack(Forgery(tag + 3 * n).request)  # the same attack on other pictures
            assert any("clean picture" in fault for fault in Forgery(tag).faults(theirs))
            assert any("seed" in fault for fault in Forgery(tag).faults(theirs))
