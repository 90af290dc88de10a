"""Transfer: a victim looks once at pictures that were made to fool another model."""

from __future__ import annotations

from collections.abc import Sequence

from iguana.v1 import attack_pb2, classify_pb2, image_pb2
from iguana_server.engine.loop import Engine
from iguana_server.rpc.codec import AttackOrder, Codec
from iguana_server.rpc.origin import Origin


class Transfer:
    """Asks the victim of a request, with the looks of anyone who classifies a file."""

    def __init__(self, engine: Engine, codec: Codec) -> None:
        """Ask this engine's models."""
        self._engine, self._codec = engine, codec

    async def note(
        self,
        request: attack_pb2.AttackRequest,
        order: AttackOrder,
        results: Sequence[attack_pb2.AttackResult],
        origin: Origin,
    ) -> None:
        """Write into these results what the request's victim sees, where it names one. Raises what Classify does."""
        made = [result for result in results if result.HasField("image")]
        if not request.victim or not made:
            return
        before = await self._look(request, [request.images[result.sample] for result in made], origin)
        after = await self._look(request, [result.image for result in made], origin)
        for result, clean, forged in zip(made, before, after, strict=True):
            label, targeted = order.manifest.labels[result.sample], order.manifest.targeted[result.sample]
            seen = forged.top[0].index
            fooled = seen == label if targeted else seen != (clean.top[0].index if label < 0 else label)
            result.transfer.CopyFrom(attack_pb2.Transfer(before=clean, after=forged, fooled=fooled))

    async def _look(
        self, request: attack_pb2.AttackRequest, images: Sequence[image_pb2.Image], origin: Origin
    ) -> Sequence[classify_pb2.Classification]:
        asked = classify_pb2.ClassifyRequest(
            model=request.victim, images=images, top_k=request.top_k, determinism=request.determinism
        )
        order = await self._codec.to_classify(asked, origin)
        return (await self._codec.from_looked(order, await self._engine.run(order.job))).classifications
