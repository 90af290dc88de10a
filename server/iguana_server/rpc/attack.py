"""AttackService: pictures that a model takes for something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from iguana.v1 import attack_pb2 as pb
from iguana.v1 import attack_pb2_grpc
from iguana_server.engine.answer import Forged, Progress
from iguana_server.engine.loop import Engine
from iguana_server.engine.script import in_turn
from iguana_server.rpc.codec import Codec
from iguana_server.rpc.context import Context
from iguana_server.rpc.dialogue import dialogue, first
from iguana_server.rpc.evasion import Evasion
from iguana_server.rpc.origin import Origin
from iguana_server.rpc.pipeline import replies
from iguana_server.rpc.transfer import Transfer


class AttackServicer(attack_pb2_grpc.AttackServiceServicer):
    """Decode, run, encode."""

    def __init__(self, engine: Engine, codec: Codec) -> None:
        """Forge with this engine's models."""
        self._engine, self._codec = engine, codec
        self._transfer, self._evasion = Transfer(engine, codec), Evasion(engine, codec)

    async def Attack(  # noqa: N802 - the contract's name, as below
        self, request: pb.AttackRequest, context: Context
    ) -> pb.AttackResponse:
        """Forge a batch."""
        return await self._attack(request, Origin.of(context))

    async def WatchAttack(  # noqa: N802
        self, request: pb.WatchAttackRequest, context: Context
    ) -> AsyncIterator[pb.WatchAttackResponse]:
        """Forge a batch, and tell how it goes."""
        origin = Origin.of(context)
        order = await self._codec.to_watched(request, origin)
        outcomes: Counter[str] = Counter()
        async with aclosing(in_turn(self._engine, len(order.images), order.acts)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    yield pb.WatchAttackResponse(progress=_progress(event))
                else:
                    outcomes[event.outcome] += 1
                    result = await self._codec.from_forged(order, event)
                    await self._transfer.note(request.request, order, [result], origin)
                    await self._evasion.note(order, [event], [result], origin)
                    yield pb.WatchAttackResponse(result=result)
        yield pb.WatchAttackResponse(summary=pb.AttackSummary(manifest=order.manifest, **outcomes))

    async def StreamAttack(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamAttackRequest], context: Context
    ) -> AsyncIterator[pb.StreamAttackResponse]:
        """Forge batches as they come."""
        answer = partial(self._attack, origin=Origin.of(context), path="request.")
        most = self._codec.limits.max_stream_items
        async with aclosing(replies(request_iterator, pb.StreamAttackResponse, answer, most=most)) as made:
            async for reply in made:
                yield reply

    async def AttackRemote(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.AttackRemoteRequest], context: Context
    ) -> AsyncIterator[pb.AttackRemoteResponse]:
        """Forge a batch for a model that only the caller sees."""
        order = await self._codec.to_remote(await first(request_iterator), Origin.of(context))
        outcomes: Counter[str] = Counter()
        async with aclosing(dialogue(self._codec, order, request_iterator)) as events:
            async for event in events:
                if isinstance(event, pb.RemoteQuery):
                    yield pb.AttackRemoteResponse(query=event)
                else:
                    outcomes[event.outcome] += 1
                    self._engine.meter.finished(event.attack, event.outcome)
                    result = await self._codec.from_forged(order.attack, event)
                    yield pb.AttackRemoteResponse(result=result)
        yield pb.AttackRemoteResponse(summary=pb.AttackSummary(manifest=order.attack.manifest, **outcomes))

    async def _attack(self, request: pb.AttackRequest, origin: Origin, path: str = "") -> pb.AttackResponse:
        order = await self._codec.to_attack(request, origin, path)
        forged: list[Forged] = []
        async with aclosing(in_turn(self._engine, len(order.images), order.acts)) as events:
            async for event in events:
                if isinstance(event, Forged):
                    forged.append(event)
        forged.sort(key=lambda one: one.sample)
        response = await self._codec.from_attack(order, forged)
        await self._transfer.note(request, order, response.results, origin)
        await self._evasion.note(order, forged, response.results, origin)
        return response


def _progress(event: Progress) -> pb.AttackProgress:
    return pb.AttackProgress(
        sample=event.sample,
        restart=event.restart,
        step=event.step,
        steps=event.steps,
        loss=event.loss,
        margin=event.margin,
        fooled=event.fooled,
    )
