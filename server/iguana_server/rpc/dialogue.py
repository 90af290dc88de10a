"""A dialogue: queries go out, answers come in, until every sample has its result."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import torch

from iguana.v1 import attack_pb2
from iguana_server.engine.answer import Forged
from iguana_server.errors import InvalidArgument
from iguana_server.rpc.codec import Codec, RemoteOrder
from iguana_server.rpc.remote import DIGEST, out_of_record, to_scores

Messages = AsyncIterator[attack_pb2.AttackRemoteRequest]


async def first(messages: Messages) -> attack_pb2.RemoteStart:
    """Read the start. Raises InvalidArgument where something else comes."""
    message = await anext(messages, None)
    if message is None or not message.HasField("start"):
        got = "the end of the stream" if message is None else message.WhichOneof("kind") or "neither"
        raise InvalidArgument("kind", f"want start in the first message, got {got}")
    return message.start


async def dialogue(
    codec: Codec, order: RemoteOrder, messages: Messages
) -> AsyncGenerator[attack_pb2.RemoteQuery | Forged]:
    """Yield queries and results; after a query the next answers are waited for, so one is open at a time.

    Recorded answers come without a query. Raises InvalidArgument where an answer is not what was asked for, or
    the record is another attack's.
    """
    answers, digest, number = _Answers(order, messages), DIGEST, 0
    while len(order.remote):
        samples, points = await codec.ask(order)
        scores: list[torch.Tensor] = []
        while (done := sum(map(len, scores))) < len(samples):
            known = order.recorded - number
            lot = slice(done, min(len(samples), done + (known if known > 0 else order.queries)))
            number += lot.stop - lot.start
            if known > 0:
                digest = await codec.to_digest(digest, points[lot])
                if number == order.recorded and digest != order.digest:
                    raise InvalidArgument("start.digest", "want that of this attack's pictures, got another")
            else:
                yield await codec.to_query(number - len(samples[lot]), points[lot], samples[lot])
            scores.append(await answers.until(number))
        for forged in await codec.tell(order, torch.cat(scores)):
            yield forged
    if number < order.recorded:
        raise out_of_record(number, order.recorded)


class _Answers:
    """What the caller says of the pictures, in the order of their numbers."""

    def __init__(self, order: RemoteOrder, messages: Messages) -> None:
        self._order, self._messages = order, messages
        self._read = 0  # answers that came
        self._rest = torch.empty(
            0, order.classes
        )  # of them, those that were not taken yet: a message's at most

    async def until(self, stop: int) -> torch.Tensor:
        """Return the scores of the pictures up to number `stop`, from where it stopped before."""
        parts, order = [self._rest], self._order
        while self._read < stop:
            message = await anext(self._messages, None)
            if message is None or not message.HasField("answer"):
                got = "the end of the stream" if message is None else message.WhichOneof("kind") or "neither"
                raise InvalidArgument("kind", f"want an answer to picture {self._read}, got {got}")
            most = min(max(stop, order.recorded) - self._read, order.answers)
            said = to_scores(message.answer, self._read, most, order.classes, labels=order.labels)
            self._read += len(said)
            parts.append(said)
        scores = torch.cat(parts)
        taken = len(scores) - (self._read - stop)
        self._rest = scores[taken:]
        return scores[:taken]
