"""A model that the server never sees, through a real server: exact, counted, resumed, at its own pace."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iguana import AsyncClient, AttackResult, Client, InvalidArgument, Overloaded, Transcript, Unavailable
from iguana.remote import Pace
from iguana.v1 import attack_pb2
from iguana_server.models.base import Model
from iguana_server.rpc.memory import Memory
from iguana_server.rpc.remote import METHODS
from tests.client.proxy import proxy_to
from tests.rpc.service import CLASSES, LIMITS, Service, pixels, serving, small_model, tensors

pytestmark = pytest.mark.asyncio(loop_scope="module")
IMAGES = pixels(4)
BY_LABELS = ("boundary", "hopskipjump", "rays")


class Counting:
    """A victim, in passes of the bucket as the engine's, that counts what it is shown."""

    def __init__(self, model: Model | None = None, *, labels: bool = False) -> None:
        self._model, self._labels = model or small_model(), labels
        self.shown: list[NDArray[np.float32]] = []
        self.times: list[float] = []

    @property
    def pictures(self) -> int:
        return sum(map(len, self.shown))

    def __call__(self, pictures: NDArray[np.float32]) -> NDArray[Any]:
        assert pictures.dtype == np.float32
        self.times.append(time.monotonic())
        self.shown.append(pictures.copy())
        bucket = self._model.spec.bucket
        x = torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2)
        x = torch.cat([x, x.new_zeros(-len(x) % bucket, *x.shape[1:])])
        with torch.inference_mode():
            scores = torch.cat([self._model(lot) for lot in torch.split(x, bucket)])[: len(pictures)]
        return (scores.argmax(1) if self._labels else scores).numpy()


def options(method: str) -> dict[str, Any]:
    budget = "steps" if method == "noise" else "queries"
    return {budget: [40, 31, 50, 3], "seed": 5, "stop": "never", "return_clean": True}


def same(one: AttackResult, other: AttackResult, *, labels: bool = False) -> None:
    """All but the names of the classes; and, by labels, what is said in logits."""
    assert one.png == other.png
    assert one.clean is not None
    assert other.clean is not None
    assert one.clean.png == other.clean.png
    for a, b in ((one.before, other.before), (one.after, other.after)):
        assert a.top[0].index == b.top[0].index
        if not labels:
            assert [(c.index, c.probability) for c in a.top] == [(c.index, c.probability) for c in b.top]
    plain: dict[str, Any] = {"picture": None, "clean": None, "before": one.before, "after": one.after}
    if labels:
        plain |= {"margin": 0, "loss": 0, "diagnosis": one.diagnosis}
    assert replace(one, **plain) == replace(other, **plain)


@pytest.mark.parametrize("method", METHODS)
async def test_remote_result_is_the_servers_own_bit_for_bit_and_every_query_is_counted(
    service: Service, method: str
) -> None:
    victim = Counting()

    def play() -> None:
        with Client(service.address) as client:
            remote = client.attack_remote(
                IMAGES, victim, method, classes=len(CLASSES), target=[None, 3, None, None], **options(method)
            )
            own = client.attack(
                IMAGES, method, model="small", target=[None, 3, None, None], **options(method)
            )
        for one, other in zip(remote, own, strict=True):
            same(one, other)
        assert sum(one.forward for one in remote) == victim.pictures
        assert replace(remote.manifest, run=own.manifest.run) == own.manifest
        assert remote.manifest.run.model == ""
        assert remote.manifest.run.versions == own.manifest.run.versions

    await asyncio.to_thread(play)


@pytest.mark.parametrize("method", BY_LABELS)
async def test_labels_are_enough_for_attacks_by_labels(service: Service, method: str) -> None:
    victim = Counting(labels=True)

    def play() -> None:
        with Client(service.address) as client:
            remote = client.attack_remote(IMAGES, victim, method, classes=len(CLASSES), **options(method))
            own = client.attack(IMAGES, method, model="small", **options(method))
        for one, other in zip(remote, own, strict=True):
            same(one, other, labels=True)
        assert any(one.fooled for one in remote)

    await asyncio.to_thread(play)


async def test_async_client_does_the_same(service: Service) -> None:
    victim, again = Counting(), Counting()

    async def slow(pictures: NDArray[np.float32]) -> NDArray[Any]:
        await asyncio.sleep(0)
        return again(pictures)

    async with AsyncClient(service.address) as client:
        first = await client.attack_remote(IMAGES, victim, "nes", classes=len(CLASSES), **options("nes"))
        second = await client.attack_remote(IMAGES, slow, "nes", classes=len(CLASSES), **options("nes"))
        own = await client.attack(IMAGES, "nes", model="small", **options("nes"))
    assert first == second
    for one, other in zip(first, own, strict=True):
        same(one, other)
    assert sum(one.forward for one in first) == victim.pictures == again.pictures


async def test_a_stream_that_breaks_is_resumed_and_the_victim_is_asked_nothing_twice(
    service: Service,
) -> None:
    """The connection is lost three times, in the midst of the attack."""

    def play() -> None:
        quiet, victim = Counting(), Counting()
        with Client(service.address) as client:
            want = client.attack_remote(IMAGES, quiet, classes=len(CLASSES), **options("square"))
        with proxy_to(service.address) as proxy:

            def breaking(pictures: NDArray[np.float32]) -> NDArray[Any]:
                if len(victim.shown) in (2, 17, 18):
                    proxy.drop()
                return victim(pictures)

            with Client(proxy.target) as client:
                found = client.attack_remote(IMAGES, breaking, classes=len(CLASSES), **options("square"))
            assert proxy.connections > 3
        assert found == want
        assert all(np.array_equal(a, b) for a, b in zip(victim.shown, quiet.shown, strict=True))

    await asyncio.to_thread(play)


async def test_an_async_stream_that_breaks_is_resumed_too(service: Service) -> None:
    victim = Counting()
    with proxy_to(service.address) as proxy:

        def breaking(pictures: NDArray[np.float32]) -> NDArray[Any]:
            if len(victim.shown) == 5:
                proxy.drop()
            return victim(pictures)

        async with AsyncClient(proxy.target) as client:
            found = await client.attack_remote(IMAGES, breaking, classes=len(CLASSES), **options("square"))
        assert proxy.connections > 1
    async with AsyncClient(service.address) as client:
        want = await client.attack_remote(IMAGES, Counting(), classes=len(CLASSES), **options("square"))
    assert found == want
    assert sum(one.forward for one in found) == victim.pictures


async def test_a_transcript_goes_on_another_day(service: Service, tmp_path: Path) -> None:
    """The victim fails; what it had said is kept in a file."""

    class Tired(Exception):
        pass

    victim = Counting()

    def tiring(pictures: NDArray[np.float32]) -> NDArray[Any]:
        if len(victim.shown) == 10:
            raise Tired
        return victim(pictures)

    def play() -> None:
        transcript, file = Transcript(), tmp_path / "said"
        with Client(service.address) as client:
            with pytest.raises(Tired):
                client.attack_remote(
                    IMAGES, tiring, classes=len(CLASSES), transcript=transcript, **options("square")
                )
            transcript.save(file)
            assert len(transcript) == victim.pictures
        with Client(service.address) as client:
            kept = Transcript.load(file)
            found = client.attack_remote(
                IMAGES, victim, classes=len(CLASSES), transcript=kept, **options("square")
            )
            assert sum(one.forward for one in found) == victim.pictures == len(kept)
            shown = len(victim.shown)
            again = client.attack_remote(
                IMAGES, victim, classes=len(CLASSES), transcript=kept, **options("square")
            )
            assert len(victim.shown) == shown
            assert again == found
            with pytest.raises(InvalidArgument, match="transcript: want that of the same call"):
                client.attack_remote(IMAGES, victim, "nes", classes=len(CLASSES), transcript=kept)
            kept.digest = bytes(32)
            with pytest.raises(InvalidArgument, match=r"start.digest: want that of this attack's pictures"):
                client.attack_remote(
                    IMAGES, victim, classes=len(CLASSES), transcript=kept, **options("square")
                )
            kept.answers *= 2
            with pytest.raises(InvalidArgument, match=r"start.recorded: want at most"):
                client.attack_remote(
                    IMAGES, victim, classes=len(CLASSES), transcript=kept, **options("square")
                )

    await asyncio.to_thread(play)


@pytest.mark.parametrize(("per_s", "lot"), [(20.0, 2), (15.0, 1)])
async def test_the_callers_rate_is_kept(service: Service, per_s: float, lot: int) -> None:
    victim = Counting()

    def play() -> None:
        with Client(service.address) as client:
            client.attack_remote(
                IMAGES[:3],
                victim,
                classes=len(CLASSES),
                queries=4,
                stop="never",
                max_queries_per_second=per_s,
            )

    await asyncio.to_thread(play)
    assert victim.pictures == 12
    assert max(map(len, victim.shown)) == lot
    took = victim.times[-1] - victim.times[0]  # the victim's first look at the clock may come late
    assert took >= 0.9 * sum(map(len, victim.shown[:-1])) / per_s


async def test_a_late_call_puts_off_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = Pace(4.0)
    assert pace.wait_s() == 0
    pace.called(2)
    assert pace.wait_s() == 0.5
    now = 50.25
    assert pace.wait_s() == 0.25
    now = 50.9  # it slept too long
    assert pace.wait_s() == 0
    pace.called(1)
    assert pace.wait_s() == pytest.approx(0.25)
    assert Pace(None).lot is None


async def test_a_server_that_stays_away_ends_the_attack(service: Service) -> None:
    def play(drop: Callable[[], None], target: str) -> None:
        def gone(pictures: NDArray[np.float32]) -> NDArray[Any]:
            drop()
            return Counting()(pictures)

        with Client(target, retries=1, timeout_s=2) as client, pytest.raises(Unavailable):
            client.attack_remote(IMAGES, gone, classes=len(CLASSES), queries=9)

    with proxy_to(service.address) as proxy:
        await asyncio.to_thread(play, proxy.close, proxy.target)


async def test_pictures_of_files_are_brought_to_the_victims_size(service: Service, cat: bytes) -> None:
    victim = Counting()

    def play() -> None:
        with Client(service.address) as client:
            found = client.attack_remote(cat, victim, classes=5, input_shape=(12, 14, 3), queries=5)
            assert found[0].image.shape == (12, 14, 3)
            with pytest.raises(InvalidArgument, match="input_shape: want"):
                client.attack_remote(cat, victim, classes=5)

    await asyncio.to_thread(play)


WRONG: list[tuple[Callable[[int], Any], str]] = [
    (
        lambda m: np.zeros((m, 4), np.float32),
        r"victim: want scores \[4, 5\] or whole labels \[4\], got float32",
    ),
    (
        lambda m: np.zeros(m, np.float32),
        r"victim: want scores \[4, 5\] or whole labels \[4\], got float32 \[4\]",
    ),
    (lambda m: np.full(m, 5), r"victim: want labels in 0..4, got 5..5"),
    (lambda m: np.zeros(m, np.int64), "answer.labels: want scores: this attack needs more than labels"),
]


@pytest.mark.parametrize(("said", "match"), WRONG)
async def test_what_is_no_answer_is_refused(service: Service, said: Callable[[int], Any], match: str) -> None:
    def play() -> None:
        with Client(service.address) as client, pytest.raises(InvalidArgument, match=match):
            client.attack_remote(IMAGES, lambda pictures: said(len(pictures)), classes=5, queries=9)

    await asyncio.to_thread(play)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"model": "small"}, "model: want none, as the model is the caller's"),
        ({"strict": True}, "strict: want none"),
        ({"time_limit_s": 5.0}, "start.request.time_limit_s: want 0: queries are the limit, got 5.0"),
        ({"diagnose": True}, "start.request.diagnose: want false without gradients, got true"),
        ({"method": "pgd"}, "start.request.method: want one of boundary, differences, .*, got pgd"),
        ({"target": 5}, r"start.request.goals\[0\].targeted.target.index: want 0..4, got 5"),
        ({"max_queries_per_second": 0}, "max_queries_per_second: want None or a number above 0, got 0"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(
    service: Service, more: dict[str, Any], match: str
) -> None:
    def play() -> None:
        with Client(service.address) as client, pytest.raises(InvalidArgument, match=match):
            client.attack_remote(IMAGES, Counting(), classes=5, **more)

    await asyncio.to_thread(play)


async def test_an_idle_victim_costs_the_server_nothing(service: Service) -> None:
    """Others are answered while it thinks, and nothing of it remains."""
    thinking, go = threading.Event(), threading.Event()
    quick = Counting()

    def think(pictures: NDArray[np.float32]) -> NDArray[Any]:
        thinking.set()
        assert go.wait(20)
        return quick(pictures)

    def play() -> None:
        with Client(service.address) as client:
            client.attack_remote(IMAGES, think, classes=5, queries=5)

    playing = asyncio.create_task(asyncio.to_thread(play))
    await asyncio.to_thread(thinking.wait, 20)
    async with AsyncClient(service.address) as client:
        await client.attack(IMAGES, "square", model="small", queries=5)
    go.set()
    await playing


@pytest.mark.parametrize("leaves", [True, False], ids=["cancelled", "late"])
async def test_a_caller_that_leaves_gives_the_memory_back(
    service: Service, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    """Whether it goes away or its deadline passes while the server waits for an answer."""
    held: list[Memory] = []
    hold = Memory.hold

    def noted(memory: Memory, size: int, owner: object) -> None:
        hold(memory, size, owner)
        held.append(memory)

    monkeypatch.setattr(Memory, "hold", noted)
    request = attack_pb2.AttackRequest(
        images=tensors(3), square=attack_pb2.Square(queries=[9]), stop_on=attack_pb2.STOP_ON_NEVER
    )
    model = attack_pb2.RemoteModel(height=12, width=14, channels=3, classes=5)
    start = attack_pb2.RemoteStart(request=request, model=model)
    call: Any = service.attack.AttackRemote(timeout=None if leaves else 0.5)
    await call.write(attack_pb2.AttackRemoteRequest(start=start))
    query = (await call.read()).query
    assert (query.number, list(query.samples)) == (0, [0, 1, 2])
    (memory,) = held
    assert memory.used > 3 * 4 * 12 * 14 * 3 * 5
    if leaves:
        call.cancel()
    else:
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await call.read()
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    for _ in range(200):
        gc.collect()
        if not memory.used:
            break
        await asyncio.sleep(0.02)
    assert memory.used == 0


async def test_what_waits_has_a_memory_of_its_own() -> None:
    """A quarter of the images' memory: attacks that wait for their callers cannot take the rest."""
    limits = replace(LIMITS, max_image_memory=4 * 50_000)
    async with serving(limits=limits) as service:
        entered, go = asyncio.Event(), asyncio.Event()

        async def think(pictures: NDArray[np.float32]) -> NDArray[Any]:
            entered.set()
            await go.wait()
            return np.zeros((len(pictures), 5), np.float32)

        async with AsyncClient(service.address, retries=0) as client:
            first = asyncio.create_task(client.attack_remote(IMAGES[:2], think, classes=5, queries=5))
            await entered.wait()
            with pytest.raises(Overloaded, match="images: want at most 50000 bytes in hand"):
                await client.attack_remote(IMAGES[:2], think, classes=5, queries=5)
            await client.attack(IMAGES, "square", model="small", queries=5)
            go.set()
            assert len(await first) == 2


async def test_every_grey_level_arrives_as_the_model_sees_it() -> None:
    async with serving() as service:
        levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
        shown = []

        def victim(pictures: NDArray[np.float32]) -> NDArray[Any]:
            shown.append(pictures)
            return np.eye(2, dtype=np.float32)[np.zeros(len(pictures), int)]

        async with AsyncClient(service.address) as client:
            await client.attack_remote(levels, victim, classes=2, queries=3)
        seen = torch.from_numpy(levels.astype(np.float32)) / 255
        assert np.array_equal(shown[0], seen.numpy())
