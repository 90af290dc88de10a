"""Evasion: what the detectors say of a picture that was led past them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from iguana.v1 import attack_pb2, detect_pb2, image_pb2, verdict_pb2
from iguana_server.engine.loop import Engine
from iguana_server.rpc.codec import AttackOrder, Codec
from iguana_server.rpc.image import exactly, from_floats, from_pixels
from iguana_server.rpc.origin import Origin


class Evasion:
    """Asks the detectors of a request, with the looks of anyone who has pixels judged."""

    def __init__(self, engine: Engine, codec: Codec) -> None:
        """Ask this engine's models and this codec's detectors."""
        self._engine, self._codec = engine, codec

    async def note(
        self,
        request: attack_pb2.AttackRequest,
        order: AttackOrder,
        results: Sequence[attack_pb2.AttackResult],
        origin: Origin,
    ) -> None:
        """Write into these results what the detectors say, where the request evades some. Raises what Detect does."""
        made = [result for result in results if result.HasField("image")]
        if not order.manifest.HasField("evade") or not made:
            return
        clean = [order.images[result.sample] for result in made]
        write = partial(from_pixels, png=False) if order.delivery.on_grid else from_floats
        before = await self._ask(order, [write(image) for image in clean], request, origin)
        after = await self._ask(order, [exactly(result.image) for result in made], request, origin)
        for result, first, last in zip(made, before, after, strict=True):
            result.evasion.CopyFrom(attack_pb2.Evasion(before=first, after=last))

    async def _ask(
        self,
        order: AttackOrder,
        images: Sequence[image_pb2.Image],
        request: attack_pb2.AttackRequest,
        origin: Origin,
    ) -> Sequence[verdict_pb2.Verdict]:
        asked = detect_pb2.DetectRequest(
            model=request.model,
            images=images,
            guard=order.manifest.evade.guard,
            determinism=request.determinism,
        )
        detect = await self._codec.to_detect(asked, origin)
        found = await self._codec.from_detected(detect, await self._engine.run(detect.job))
        return [detection.verdict for detection in found.detections]
