"""The client for asyncio."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from iguana import response, retry
from iguana.aio_pipeline import AsyncPipeline
from iguana.channel import DEFAULT_TARGET, MAX_RECEIVE_BYTES, MAX_SEND_BYTES, Endpoint, check_size
from iguana.errors import DeadlineExceeded, IguanaError, NotFound, from_rpc_error
from iguana.generate import (
    DEFAULT_GENERATOR,
    Generated,
    GenerateOptions,
    Generations,
    Inversions,
    InvertItem,
    Scores,
    generate_request,
    generated,
    generations,
    inversions,
    invert_request,
    score_request,
    scores,
)
from iguana.image import ImagesLike
from iguana.listing import Attack, Models
from iguana.pipeline import STREAM_S, Answered, InFlight, Request
from iguana.remote import (
    AsyncVictim,
    Pace,
    Remote,
    Reopening,
    Transcript,
    Victim,
    closed,
    remote_start,
    unread,
)
from iguana.request import (
    DEFAULT_MODEL,
    AttackItem,
    AttackOptions,
    ClassifyItem,
    ClassLike,
    DetectItem,
    attack_request,
    check_time_limit,
    classify_request,
    detect_request,
)
from iguana.result import AttackAnswer, AttackResult, Classifications, Detections, Progress
from iguana.translate import (
    Canvas,
    Piece,
    Styles,
    TranslateItem,
    Translations,
    piece,
    translate_request,
    translations,
)
from iguana.v1 import (
    attack_pb2,
    attack_pb2_grpc,
    classify_pb2,
    classify_pb2_grpc,
    detect_pb2,
    detect_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    translate_pb2,
    translate_pb2_grpc,
)
from iguana.watch import AsyncWatch

AnswerT = TypeVar("AnswerT", bound=Message)
ItemT = TypeVar("ItemT")


class AsyncClient:
    """As `iguana.Client`, for asyncio: make it in a running event loop and use it there.

        async with AsyncClient() as client:
            answer = await client.attack("cat.png", target="common iguana")

    A cancelled task cancels its call on the server; `asyncio.CancelledError` always comes through.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout_s: float = 60.0,
        tls: grpc.ChannelCredentials | str | Path | None = None,
        caller: str | None = None,
        max_streams: int = 100,
        retries: int = 4,
        max_send_bytes: int = MAX_SEND_BYTES,
        max_receive_bytes: int = MAX_RECEIVE_BYTES,
    ) -> None:
        asyncio.get_running_loop()  # raises RuntimeError outside of one
        self._endpoint = Endpoint(
            target, timeout_s, tls, caller, max_streams, retries, max_send_bytes, max_receive_bytes
        )
        self._streams = asyncio.Semaphore(max_streams)
        self._channel = self._endpoint.open_aio()
        self._classify = classify_pb2_grpc.ClassifyServiceStub(self._channel)
        self._attack = attack_pb2_grpc.AttackServiceStub(self._channel)
        self._detect = detect_pb2_grpc.DetectServiceStub(self._channel)
        self._generate = generate_pb2_grpc.GenerateServiceStub(self._channel)
        self._translate = translate_pb2_grpc.TranslateServiceStub(self._channel)
        self._model = model_pb2_grpc.ModelServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def classify(
        self,
        images: ImagesLike,
        *,
        model: str = DEFAULT_MODEL,
        top_k: int = 5,
        logits: bool = False,
        strict: bool = True,
        guard: bool | Sequence[str] = False,
        false_positive_rate: float = 0.0,
        timeout_s: float | None = None,
    ) -> Classifications:
        """See `iguana.Client.classify`."""
        request = classify_request(
            images,
            model=model,
            top_k=top_k,
            logits=logits,
            strict=strict,
            guard=guard,
            false_positive_rate=false_positive_rate,
        )
        return response.classifications(await self._unary(self._classify.Classify, request, timeout_s))

    async def detect(
        self,
        images: ImagesLike,
        *,
        model: str = DEFAULT_MODEL,
        detectors: Sequence[str] = (),
        false_positive_rate: float = 0.0,
        top_k: int = 5,
        strict: bool = True,
        timeout_s: float | None = None,
    ) -> Detections:
        """See `iguana.Client.detect`."""
        request = detect_request(
            images,
            model=model,
            detectors=detectors,
            false_positive_rate=false_positive_rate,
            top_k=top_k,
            strict=strict,
        )
        return response.detections(await self._unary(self._detect.Detect, request, timeout_s))

    async def attack(
        self,
        images: ImagesLike,
        method: str = "pgd",
        *,
        on_progress: Callable[[Progress], None] | None = None,
        timeout_s: float | None = None,
        **options: Unpack[AttackOptions],
    ) -> AttackAnswer:
        """See `iguana.Client.attack`."""
        if on_progress is not None:
            return await self._reported(
                self.watch(images, method, timeout_s=timeout_s, **options), on_progress
            )
        request = attack_request(images, method, **options)
        check_time_limit(request, timeout_s or self._endpoint.timeout_s)
        return response.attack_answer(await self._unary(self._attack.Attack, request, timeout_s))

    def watch(
        self,
        images: ImagesLike,
        method: str = "pgd",
        *,
        every_steps: int = 1,
        timeout_s: float | None = None,
        **options: Unpack[AttackOptions],
    ) -> AsyncWatch:
        """See `iguana.Client.watch`."""
        request = attack_pb2.WatchAttackRequest(
            request=attack_request(images, method, **options), every_steps=every_steps
        )
        check_time_limit(request.request, timeout_s or self._endpoint.timeout_s)
        return AsyncWatch(self._events(self._attack.WatchAttack, request, timeout_s))

    async def generate(
        self, *, timeout_s: float | None = None, **options: Unpack[GenerateOptions]
    ) -> Generations:
        """See `iguana.Client.generate`."""
        request = generate_request(**options)
        return generations(await self._unary(self._generate.Generate, request, timeout_s))

    async def watch_generate(
        self, *, timeout_s: float | None = None, **options: Unpack[GenerateOptions]
    ) -> AsyncGenerator[Generated]:
        """See `iguana.Client.watch_generate`."""
        request = generate_pb2.WatchGenerateRequest(request=generate_request(**options))
        async with aclosing(self._events(self._generate.WatchGenerate, request, timeout_s)) as messages:
            async for message in messages:
                if message.HasField("picture"):
                    yield generated(message.picture)

    async def invert(self, *, timeout_s: float | None = None, **item: Unpack[InvertItem]) -> Inversions:
        """See `iguana.Client.invert`."""
        request = invert_request(**item)
        return inversions(await self._unary(self._generate.Invert, request, timeout_s))

    async def score(
        self,
        images: ImagesLike,
        *,
        model: str = DEFAULT_GENERATOR,
        labels: ClassLike | Sequence[ClassLike] | None = None,
        strict: bool = True,
        timeout_s: float | None = None,
    ) -> Scores:
        """See `iguana.Client.score`."""
        request = score_request(images, model=model, labels=labels, strict=strict)
        return scores(await self._unary(self._generate.Score, request, timeout_s))

    async def translate(
        self,
        images: ImagesLike,
        *,
        model: str,
        styles: Styles = (),
        encoding: str = "png",
        strict: bool = True,
        on_piece: Callable[[Piece], None] | None = None,
        timeout_s: float | None = None,
    ) -> Translations:
        """See `iguana.Client.translate`."""
        if on_piece is None:
            request = translate_request(images, model=model, styles=styles, encoding=encoding, strict=strict)
            return translations(await self._unary(self._translate.Translate, request, timeout_s))
        request = translate_request(images, model=model, styles=styles, encoding="tensor", strict=strict)
        canvas, summary = Canvas(), None
        watch = translate_pb2.WatchTranslateRequest(request=request)
        async with aclosing(self._events(self._translate.WatchTranslate, watch, timeout_s)) as messages:
            async for message in messages:
                if message.HasField("piece"):
                    one = piece(message.piece)
                    canvas.put(one)
                    on_piece(one)
                else:
                    summary = message.summary
        return canvas.translations(summary)

    async def stream_classify(
        self,
        items: Iterable[tuple[str, ClassifyItem]] | AsyncIterable[tuple[str, ClassifyItem]],
        *,
        in_flight: int = 16,
    ) -> AsyncGenerator[tuple[str, Classifications | IguanaError]]:
        """See `iguana.Client.stream_classify`. `items` may be asynchronous; it is read in a task."""
        requests = (
            classify_pb2.StreamClassifyRequest(id=i, request=classify_request(**item))
            async for i, item in _each(items)
        )
        async with aclosing(self._pipeline(self._classify.StreamClassify, requests, in_flight)) as answers:
            async for i, answer in answers:
                yield i, answer if isinstance(answer, IguanaError) else response.classifications(answer)

    async def stream_detect(
        self,
        items: Iterable[tuple[str, DetectItem]] | AsyncIterable[tuple[str, DetectItem]],
        *,
        in_flight: int = 16,
    ) -> AsyncGenerator[tuple[str, Detections | IguanaError]]:
        """See `iguana.Client.stream_detect`. `items` may be asynchronous; it is read in a task."""
        requests = (
            detect_pb2.StreamDetectRequest(id=i, request=detect_request(**item))
            async for i, item in _each(items)
        )
        async with aclosing(self._pipeline(self._detect.StreamDetect, requests, in_flight)) as answers:
            async for i, answer in answers:
                yield i, answer if isinstance(answer, IguanaError) else response.detections(answer)

    async def stream_attack(
        self,
        items: Iterable[tuple[str, AttackItem]] | AsyncIterable[tuple[str, AttackItem]],
        *,
        in_flight: int = 16,
    ) -> AsyncGenerator[tuple[str, AttackAnswer | IguanaError]]:
        """See `iguana.Client.stream_attack`. `items` may be asynchronous; it is read in a task."""
        requests = (
            attack_pb2.StreamAttackRequest(id=i, request=attack_request(**item))
            async for i, item in _each(items)
        )
        async with aclosing(self._pipeline(self._attack.StreamAttack, requests, in_flight)) as answers:
            async for i, answer in answers:
                yield i, answer if isinstance(answer, IguanaError) else response.attack_answer(answer)

    async def stream_generate(
        self,
        items: Iterable[tuple[str, GenerateOptions]] | AsyncIterable[tuple[str, GenerateOptions]],
        *,
        in_flight: int = 16,
    ) -> AsyncGenerator[tuple[str, Generations | IguanaError]]:
        """See `iguana.Client.stream_generate`. `items` may be asynchronous; it is read in a task."""
        requests = (
            generate_pb2.StreamGenerateRequest(id=i, request=generate_request(**item))
            async for i, item in _each(items)
        )
        async with aclosing(self._pipeline(self._generate.StreamGenerate, requests, in_flight)) as answers:
            async for i, answer in answers:
                yield i, answer if isinstance(answer, IguanaError) else generations(answer)

    async def stream_translate(
        self,
        items: Iterable[tuple[str, TranslateItem]] | AsyncIterable[tuple[str, TranslateItem]],
        *,
        in_flight: int = 16,
    ) -> AsyncGenerator[tuple[str, Translations | IguanaError]]:
        """See `iguana.Client.stream_translate`. `items` may be asynchronous; it is read in a task."""
        requests = (
            translate_pb2.StreamTranslateRequest(id=i, request=translate_request(**item))
            async for i, item in _each(items)
        )
        async with aclosing(self._pipeline(self._translate.StreamTranslate, requests, in_flight)) as answers:
            async for i, answer in answers:
                yield i, answer if isinstance(answer, IguanaError) else translations(answer)

    async def attack_remote(
        self,
        images: ImagesLike,
        victim: Victim | AsyncVictim,
        /,
        method: str = "square",
        *,
        classes: int,
        input_shape: tuple[int, int, int] | None = None,
        max_queries_per_second: float | None = None,
        transcript: Transcript | None = None,
        **options: Unpack[AttackOptions],
    ) -> AttackAnswer:
        """See `iguana.Client.attack_remote`. What the victim returns may be awaited."""
        remote = Remote(
            remote_start(images, method, classes, input_shape, options),
            transcript,
            Pace(max_queries_per_second),
            self._endpoint.max_send_bytes,
        )
        reopening = Reopening(self._endpoint.retries, self._endpoint.timeout_s)
        async with self._stream(self._endpoint.deadline(None)):
            while True:
                answer = await self._remote_stream(remote, victim)
                if isinstance(answer, AttackAnswer):
                    return answer
                await asyncio.sleep(reopening.pause_s(answer, len(remote.transcript)))

    async def _remote_stream(
        self, remote: Remote, victim: Victim | AsyncVictim
    ) -> AttackAnswer | IguanaError:
        outbox: asyncio.Queue[attack_pb2.AttackRemoteRequest] = asyncio.Queue()
        results: list[attack_pb2.AttackResult] = []

        async def outgoing() -> AsyncGenerator[attack_pb2.AttackRemoteRequest]:
            for message in remote.opening():
                yield message
            while True:  # until the call is over
                yield await outbox.get()

        call = self._attack.AttackRemote(outgoing(), timeout=STREAM_S, metadata=self._endpoint.metadata)
        try:
            async for message in call:
                kind = message.WhichOneof("kind")
                if kind == "query":
                    for pictures in remote.lots(message.query):
                        await asyncio.sleep(remote.pace.wait_s())
                        remote.pace.called(len(pictures))
                        said = victim(pictures)
                        outbox.put_nowait(
                            remote.heard(pictures, await said if inspect.isawaitable(said) else said)
                        )
                elif kind == "result":
                    results.append(message.result)
                elif kind == "summary":
                    return response.remote_answer(results, message.summary)
                else:
                    raise unread(kind)
        except grpc.RpcError as error:
            return from_rpc_error(error)
        finally:
            call.cancel()
        return closed()

    async def models(self, *, timeout_s: float | None = None) -> Models:
        """See `iguana.Client.models`."""
        return response.models(
            await self._unary(self._model.ListModels, model_pb2.ListModelsRequest(), timeout_s)
        )

    async def attacks(self, *, timeout_s: float | None = None) -> list[Attack]:
        """See `iguana.Client.attacks`."""
        return response.attacks(
            await self._unary(self._model.ListAttacks, model_pb2.ListAttacksRequest(), timeout_s)
        )

    async def health(self, service: str = "", *, timeout_s: float | None = None) -> bool:
        """See `iguana.Client.health`."""
        try:
            answer = await self._unary(
                self._health.Check, health_pb2.HealthCheckRequest(service=service), timeout_s
            )
        except NotFound:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def _unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Any, AnswerT],
        request: Message,
        timeout_s: float | None,
    ) -> AnswerT:
        check_size(request, self._endpoint.max_send_bytes)
        deadline = self._endpoint.deadline(timeout_s)
        while True:
            async with self._stream(deadline):
                try:
                    return await method(
                        request, timeout=deadline.remaining_s(), metadata=self._endpoint.metadata
                    )
                except grpc.RpcError as error:
                    refusal = from_rpc_error(error)
            await self._pause(refusal, deadline)

    async def _events(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Any, AnswerT],
        request: Message,
        timeout_s: float | None,
    ) -> AsyncGenerator[AnswerT]:
        check_size(request, self._endpoint.max_send_bytes)
        deadline = self._endpoint.deadline(timeout_s)
        begun = False
        while True:
            async with self._stream(deadline):
                call = method(request, timeout=deadline.remaining_s(), metadata=self._endpoint.metadata)
                try:
                    async for message in call:
                        begun = True
                        yield message
                except grpc.RpcError as error:
                    refusal = from_rpc_error(error)
                else:
                    return
                finally:
                    call.cancel()
            if begun:
                raise refusal
            await self._pause(refusal, deadline)

    async def _pipeline(
        self,
        method: grpc.aio.StreamStreamMultiCallable[Any, Any],
        requests: AsyncIterator[Request],
        in_flight: int,
    ) -> AsyncGenerator[Answered]:
        timeout_s, retries = self._endpoint.timeout_s, self._endpoint.retries
        waiting = InFlight(in_flight, timeout_s, retries, self._endpoint.max_send_bytes)
        async with self._stream(retry.Deadline(timeout_s)):
            pipeline = AsyncPipeline(
                lambda outgoing: method(outgoing, timeout=STREAM_S, metadata=self._endpoint.metadata),
                requests,
                waiting,
                retries,
            )
            async with aclosing(pipeline.run()) as answers:
                async for answer in answers:
                    yield answer

    @asynccontextmanager
    async def _stream(self, deadline: retry.Deadline) -> AsyncGenerator[None]:
        """One of the client's own streams."""
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                await self._streams.acquire()
        except TimeoutError as error:
            text = f"all {self._endpoint.max_streams} streams of this client were busy"
            raise DeadlineExceeded(text) from error
        try:
            yield
        finally:
            self._streams.release()

    async def _pause(self, refusal: IguanaError, deadline: retry.Deadline) -> None:
        pause_s = retry.overload_pause_s(refusal, deadline, self._endpoint.retries)
        if pause_s is None:
            raise refusal
        await asyncio.sleep(pause_s)

    @staticmethod
    async def _reported(watch: AsyncWatch, on_progress: Callable[[Progress], None]) -> AttackAnswer:
        results: dict[int, AttackResult] = {}
        async with watch:
            async for event in watch:
                if isinstance(event, Progress):
                    on_progress(event)
                else:
                    results[event.sample] = event
        return response.watched_answer(results, watch.summary)


async def _each(items: Iterable[ItemT] | AsyncIterable[ItemT]) -> AsyncGenerator[ItemT]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
