"""Evasion: what the detectors say of a picture that was led past them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from iguana.v1 import attack_pb2, verdict_pb2
from iguana_server.engine.answer import Forged
from iguana_server.engine.loop import Engine
from iguana_server.rpc.codec import AttackOrder, Codec
from iguana_server.rpc.origin import Origin


class Evasion:
    """Asks the detectors of a request about the very pixels, with the looks of anyone."""

    def __init__(self, engine: Engine, codec: Codec) -> None:
        """Ask this engine's models and this codec's detectors."""
        self._engine, self._codec = engine, codec

    async def note(
        self,
        order: AttackOrder,
        forged: Sequence[Forged],
        results: Sequence[attack_pb2.AttackResult],
        origin: Origin,
    ) -> None:
        """Write into the results of these answers what the detectors say, where the order evades some."""
        made = [pair for pair in zip(forged, results, strict=True) if pair[1].HasField("image")]
        if order.screen is None or not made:
            return
        before = await self._ask(order, [order.images[one.sample] for one, _ in made], origin)
        after = await self._ask(order, [one.image for one, _ in made], origin)
        for (_, result), first, last in zip(made, before, after, strict=True):
            result.evasion.CopyFrom(attack_pb2.Evasion(before=first, after=last))

    async def _ask(
        self, order: AttackOrder, images: Sequence[torch.Tensor], origin: Origin
    ) -> Sequence[verdict_pb2.Verdict]:
        asked = await self._codec.to_judged(order, images, origin)
        return await self._codec.from_judged(asked, await self._engine.run(asked.job))
