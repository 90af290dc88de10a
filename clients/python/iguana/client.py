"""The client."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from iguana import response, retry
from iguana.channel import DEFAULT_TARGET, MAX_RECEIVE_BYTES, MAX_SEND_BYTES, Endpoint, check_size
from iguana.errors import Cancelled, DeadlineExceeded, IguanaError, NotFound, from_rpc_error
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
from iguana.pipeline import STREAM_S, Answered, InFlight, Pipeline, Request
from iguana.remote import Pace, Remote, Reopening, Transcript, Victim, closed, remote_start, unread
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
from iguana.watch import Watch

AnswerT = TypeVar("AnswerT", bound=Message)


class Client:
    """A connection of its own to an Iguana server; safe to share between threads.

        with Client("127.0.0.1:7777") as client:
            print(client.classify("cat.png")[0].top[0].name)
            result = client.attack("cat.png", target="common iguana", epsilon=4 / 255, steps=20)[0]
            print(result.outcome, result.norms.linf)

    Args:
        target: HOST:PORT, or any gRPC name.
        timeout_s: the time-out of a call with all its retries, unless the call says otherwise.
        tls: channel credentials, or the path of the root certificates (PEM); None is plain text.
        caller: who is calling, sent as metadata `iguana-caller`.
        max_streams: calls under way at once; further ones wait here. Keep it below the server's 128: it
            refuses instead of queueing.
        retries: how often a call is sent again when the server is unavailable, 0 to 4; 0 also turns off the
            wait for a full queue.
        max_send_bytes: the largest request, 1 to 2**30; a larger one is refused here. The server's own limit
            is its setting `server.max_message_bytes`.
        max_receive_bytes: the largest answer, 1 to 2**30. The server's own is `server.max_reply_bytes`.

    Every method raises the errors of `iguana.errors`; OSError for an image file that cannot be read.
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
        self._endpoint = Endpoint(
            target, timeout_s, tls, caller, max_streams, retries, max_send_bytes, max_receive_bytes
        )
        self._streams = threading.Semaphore(max_streams)
        self._channel = self._endpoint.open()
        self._classify = classify_pb2_grpc.ClassifyServiceStub(self._channel)
        self._attack = attack_pb2_grpc.AttackServiceStub(self._channel)
        self._detect = detect_pb2_grpc.DetectServiceStub(self._channel)
        self._generate = generate_pb2_grpc.GenerateServiceStub(self._channel)
        self._translate = translate_pb2_grpc.TranslateServiceStub(self._channel)
        self._model = model_pb2_grpc.ModelServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def close(self) -> None:
        """Close the connection; calls under way end in `Cancelled`."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def classify(
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
        """What the model sees in each image: a list, in order, with the `manifest`.

        Args:
            images: one picture, a list of them, or pixels [n, H, W, C]; see `iguana.image.ImageLike`.
            model: a name from `models`.
            top_k: how many classes to list, best first.
            logits: deliver the raw outputs of all classes, too.
            strict: the same bytes in any company; False is a little faster and differs by about 1e-6.
            guard: detectors in front, all (True) or by name: what they flag has a `refusal` and no classes.
            false_positive_rate: of the guard, as in `detect`.
            timeout_s: the time-out of this call, in seconds.
        """
        request = classify_request(
            images,
            model=model,
            top_k=top_k,
            logits=logits,
            strict=strict,
            guard=guard,
            false_positive_rate=false_positive_rate,
        )
        return response.classifications(self._unary(self._classify.Classify, request, timeout_s))

    def detect(
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
        """Whether each image was forged to mislead the model: a list, in order, with the `manifest`.

        Args:
            images: as in `classify`.
            model: a name from `models`; it must have detectors.
            detectors: names from the model's `detectors`; none: all of them.
            false_positive_rate: the share of clean pictures that may be flagged by them together; 0: the
                calibration's.
            top_k: how many classes to list, best first.
            strict: as in `classify`.
            timeout_s: the time-out of this call, in seconds.
        """
        request = detect_request(
            images,
            model=model,
            detectors=detectors,
            false_positive_rate=false_positive_rate,
            top_k=top_k,
            strict=strict,
        )
        return response.detections(self._unary(self._detect.Detect, request, timeout_s))

    def attack(
        self,
        images: ImagesLike,
        method: str = "pgd",
        *,
        on_progress: Callable[[Progress], None] | None = None,
        timeout_s: float | None = None,
        **options: Unpack[AttackOptions],
    ) -> AttackAnswer:
        """Forge each image until the model takes it for something else.

        `options` are those of `iguana.AttackOptions`, the method's parameters among them (`epsilon=8/255`;
        see `attacks`), once or once a sample. What is not given is the server's default. An attack that fails
        is an answer: see `AttackResult.outcome`.
        """
        if on_progress is not None:
            return self._reported(self.watch(images, method, timeout_s=timeout_s, **options), on_progress)
        request = attack_request(images, method, **options)
        check_time_limit(request, timeout_s or self._endpoint.timeout_s)
        return response.attack_answer(self._unary(self._attack.Attack, request, timeout_s))

    def watch(
        self,
        images: ImagesLike,
        method: str = "pgd",
        *,
        every_steps: int = 1,
        timeout_s: float | None = None,
        **options: Unpack[AttackOptions],
    ) -> Watch:
        """As `attack`, but iterates over progress (every so many steps of a sample) and results as they come.

        The attack is not sent again once it has begun to answer.
        """
        request = attack_pb2.WatchAttackRequest(
            request=attack_request(images, method, **options), every_steps=every_steps
        )
        check_time_limit(request.request, timeout_s or self._endpoint.timeout_s)
        return Watch(self._events(self._attack.WatchAttack, request, timeout_s))

    def generate(self, *, timeout_s: float | None = None, **options: Unpack[GenerateOptions]) -> Generations:
        """Make pictures of seeds, codes or expressions: a list, in order, with the `manifest`.

            client.generate(model="faces", seeds=range(64))
            client.generate(model="faces", codes={"man": 3, "woman": 7}, expressions="slerp(man, woman, 16)")

        `options` are those of `iguana.GenerateOptions`.
        """
        request = generate_request(**options)
        return generations(self._unary(self._generate.Generate, request, timeout_s))

    def watch_generate(
        self, *, timeout_s: float | None = None, **options: Unpack[GenerateOptions]
    ) -> Generator[Generated]:
        """As `generate`, but iterates over the pictures as they come, in any order.

        It is not sent again once it has begun to answer.
        """
        request = generate_pb2.WatchGenerateRequest(request=generate_request(**options))
        with closing(self._events(self._generate.WatchGenerate, request, timeout_s)) as messages:
            for message in messages:
                if message.HasField("picture"):
                    yield generated(message.picture)

    def invert(self, *, timeout_s: float | None = None, **item: Unpack[InvertItem]) -> Inversions:
        """Look for the codes whose pictures come nearest to the images; see `iguana.InvertItem`."""
        request = invert_request(**item)
        return inversions(self._unary(self._generate.Invert, request, timeout_s))

    def score(
        self,
        images: ImagesLike,
        *,
        model: str = DEFAULT_GENERATOR,
        labels: ClassLike | Sequence[ClassLike] | None = None,
        strict: bool = True,
        timeout_s: float | None = None,
    ) -> Scores:
        """How real each image looks to the discriminator of a generator: a list, in order, with the `manifest`."""
        request = score_request(images, model=model, labels=labels, strict=strict)
        return scores(self._unary(self._generate.Score, request, timeout_s))

    def translate(
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
        """Turn each image into another: a list, in order, with the `manifest`.

        Args:
            images: one picture, a list of them, or pixels [n, H, W, C]; of any size that the translator takes.
            model: a translator's name from `models().translators`.
            styles: of a translator that has some: a name, several in equal parts, or weights by name.
            encoding: delivered as "png" or "tensor".
            strict: as in `classify`.
            on_piece: called with each piece as it comes; the answer comes in pieces, and may be of any size. It is
                not sent again once it has begun to answer, and delivers pixels.
            timeout_s: the time-out of this call, in seconds.
        """
        if on_piece is None:
            request = translate_request(images, model=model, styles=styles, encoding=encoding, strict=strict)
            return translations(self._unary(self._translate.Translate, request, timeout_s))
        request = translate_request(images, model=model, styles=styles, encoding="tensor", strict=strict)
        canvas, summary = Canvas(), None
        watch = translate_pb2.WatchTranslateRequest(request=request)
        with closing(self._events(self._translate.WatchTranslate, watch, timeout_s)) as messages:
            for message in messages:
                if message.HasField("piece"):
                    one = piece(message.piece)
                    canvas.put(one)
                    on_piece(one)
                else:
                    summary = message.summary
        return canvas.translations(summary)

    def stream_classify(
        self, items: Iterable[tuple[str, ClassifyItem]], *, in_flight: int = 16
    ) -> Iterator[tuple[str, Classifications | IguanaError]]:
        """Classify without end: (id, arguments of `classify`) in, (id, answer or error) out in any order.

        At most `in_flight` items are under way; `items` is read in a thread. See `iguana.pipeline` on errors.
        """
        requests = (
            classify_pb2.StreamClassifyRequest(id=i, request=classify_request(**item)) for i, item in items
        )
        for i, answer in self._pipeline(self._classify.StreamClassify, requests, in_flight):
            yield i, answer if isinstance(answer, IguanaError) else response.classifications(answer)

    def stream_detect(
        self, items: Iterable[tuple[str, DetectItem]], *, in_flight: int = 16
    ) -> Iterator[tuple[str, Detections | IguanaError]]:
        """Detect without end: (id, arguments of `detect`) in, (id, answer or error) out in any order.

        At most `in_flight` items are under way; `items` is read in a thread. See `iguana.pipeline` on errors.
        """
        requests = (detect_pb2.StreamDetectRequest(id=i, request=detect_request(**item)) for i, item in items)
        for i, answer in self._pipeline(self._detect.StreamDetect, requests, in_flight):
            yield i, answer if isinstance(answer, IguanaError) else response.detections(answer)

    def stream_attack(
        self, items: Iterable[tuple[str, AttackItem]], *, in_flight: int = 16
    ) -> Iterator[tuple[str, AttackAnswer | IguanaError]]:
        """Attack without end: (id, arguments of `attack`) in, (id, answer or error) out in any order.

        At most `in_flight` items are under way; `items` is read in a thread. See `iguana.pipeline` on errors.
        """
        requests = (attack_pb2.StreamAttackRequest(id=i, request=attack_request(**item)) for i, item in items)
        for i, answer in self._pipeline(self._attack.StreamAttack, requests, in_flight):
            yield i, answer if isinstance(answer, IguanaError) else response.attack_answer(answer)

    def stream_generate(
        self, items: Iterable[tuple[str, GenerateOptions]], *, in_flight: int = 16
    ) -> Iterator[tuple[str, Generations | IguanaError]]:
        """Generate without end: (id, arguments of `generate`) in, (id, answer or error) out in any order.

        At most `in_flight` items are under way; `items` is read in a thread. See `iguana.pipeline` on errors.
        """
        requests = (
            generate_pb2.StreamGenerateRequest(id=i, request=generate_request(**item)) for i, item in items
        )
        for i, answer in self._pipeline(self._generate.StreamGenerate, requests, in_flight):
            yield i, answer if isinstance(answer, IguanaError) else generations(answer)

    def stream_translate(
        self, items: Iterable[tuple[str, TranslateItem]], *, in_flight: int = 16
    ) -> Iterator[tuple[str, Translations | IguanaError]]:
        """Translate without end: (id, arguments of `translate`) in, (id, answer or error) out in any order.

        At most `in_flight` items are under way; `items` is read in a thread. See `iguana.pipeline` on errors.
        """
        requests = (
            translate_pb2.StreamTranslateRequest(id=i, request=translate_request(**item)) for i, item in items
        )
        for i, answer in self._pipeline(self._translate.StreamTranslate, requests, in_flight):
            yield i, answer if isinstance(answer, IguanaError) else translations(answer)

    def attack_remote(
        self,
        images: ImagesLike,
        victim: Victim,
        /,
        method: str = "square",
        *,
        classes: int,
        input_shape: tuple[int, int, int] | None = None,
        max_queries_per_second: float | None = None,
        transcript: Transcript | None = None,
        **options: Unpack[AttackOptions],
    ) -> AttackAnswer:
        """Forge each image until `victim` takes it for something else: a model that the server never sees.

        It lasts as long as the victim takes. When the stream breaks it is opened again, and the victim is asked
        nothing twice. What the victim raises is raised here.

        Args:
            images: as in `classify`; arrays are exactly of the victim's size.
            victim: called with pictures [m, H, W, C], float32 in [0, 1]; returns scores [m, classes], of which
                the largest wins, or labels [m], which are enough for boundary, hopskipjump and rays.
            method: an attack that needs no gradients.
            classes: how many the victim knows, 2 to 65536.
            input_shape: (height, width, channels) of the victim's pictures; None: those of the first image, an array.
            max_queries_per_second: pictures that the victim is shown a second, at most; None: no limit.
            transcript: where the victim's answers are written, and read from first: to go on another time.
            options: as in `attack`, but for model, strict, time_limit_s, diagnose, victim and evade.
        """
        remote = Remote(
            remote_start(images, method, classes, input_shape, options),
            transcript,
            Pace(max_queries_per_second),
            self._endpoint.max_send_bytes,
        )
        reopening = Reopening(self._endpoint.retries, self._endpoint.timeout_s)
        with self._stream(self._endpoint.deadline(None)):
            while True:
                answer = self._remote_stream(remote, victim)
                if isinstance(answer, AttackAnswer):
                    return answer
                time.sleep(reopening.pause_s(answer, len(remote.transcript)))

    def _remote_stream(self, remote: Remote, victim: Victim) -> AttackAnswer | IguanaError:
        """One stream of an attack on a victim; its answer, or why it broke."""
        outbox: queue.SimpleQueue[attack_pb2.AttackRemoteRequest | None] = queue.SimpleQueue()
        results: list[attack_pb2.AttackResult] = []
        call = self._attack.AttackRemote(
            itertools.chain(remote.opening(), iter(outbox.get, None)),
            timeout=STREAM_S,
            metadata=self._endpoint.metadata,
        )
        try:
            for message in call:
                kind = message.WhichOneof("kind")
                if kind == "query":
                    for pictures in remote.lots(message.query):
                        time.sleep(remote.pace.wait_s())
                        remote.pace.called(len(pictures))
                        outbox.put(remote.heard(pictures, victim(pictures)))
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
            outbox.put(None)
        return closed()

    def models(self, *, timeout_s: float | None = None) -> Models:
        """The loaded models, and the `limits` of requests."""
        return response.models(self._unary(self._model.ListModels, model_pb2.ListModelsRequest(), timeout_s))

    def attacks(self, *, timeout_s: float | None = None) -> list[Attack]:
        """The attacks and their parameters, with ranges and defaults."""
        return response.attacks(
            self._unary(self._model.ListAttacks, model_pb2.ListAttacksRequest(), timeout_s)
        )

    def health(self, service: str = "", *, timeout_s: float | None = None) -> bool:
        """Whether the server, or one service of it, is serving (grpc.health.v1); False for an unknown one."""
        try:
            answer = self._unary(
                self._health.Check, health_pb2.HealthCheckRequest(service=service), timeout_s
            )
        except NotFound:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _unary(
        self, method: grpc.UnaryUnaryMultiCallable[Any, AnswerT], request: Message, timeout_s: float | None
    ) -> AnswerT:
        check_size(request, self._endpoint.max_send_bytes)
        deadline = self._endpoint.deadline(timeout_s)
        while True:
            with self._stream(deadline):
                call = method.future(
                    request, timeout=deadline.remaining_s(), metadata=self._endpoint.metadata
                )
                try:
                    return call.result()
                except grpc.RpcError as error:
                    refusal = from_rpc_error(error)
                except grpc.FutureCancelledError as error:
                    raise Cancelled("the client was closed") from error
                finally:
                    call.cancel()  # of no effect on a call that is done; Ctrl-C leaves one that is not
            self._pause(refusal, deadline)

    def _events(
        self, method: grpc.UnaryStreamMultiCallable[Any, AnswerT], request: Message, timeout_s: float | None
    ) -> Generator[AnswerT]:
        check_size(request, self._endpoint.max_send_bytes)
        deadline = self._endpoint.deadline(timeout_s)
        begun = False
        while True:
            with self._stream(deadline):
                call = method(request, timeout=deadline.remaining_s(), metadata=self._endpoint.metadata)
                try:
                    for message in call:
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
            self._pause(refusal, deadline)

    def _pipeline(
        self, method: grpc.StreamStreamMultiCallable[Any, Any], requests: Iterable[Request], in_flight: int
    ) -> Generator[Answered]:
        timeout_s, retries = self._endpoint.timeout_s, self._endpoint.retries
        waiting = InFlight(in_flight, timeout_s, retries, self._endpoint.max_send_bytes)
        with self._stream(retry.Deadline(timeout_s)):
            yield from Pipeline(
                lambda outgoing: method(outgoing, timeout=STREAM_S, metadata=self._endpoint.metadata),
                requests,
                waiting,
                retries,
            ).run()

    @contextmanager
    def _stream(self, deadline: retry.Deadline) -> Generator[None]:
        """One of the client's own streams."""
        if not self._streams.acquire(timeout=deadline.remaining_s()):
            raise DeadlineExceeded(f"all {self._endpoint.max_streams} streams of this client were busy")
        try:
            yield
        finally:
            self._streams.release()

    def _pause(self, refusal: IguanaError, deadline: retry.Deadline) -> None:
        pause_s = retry.overload_pause_s(refusal, deadline, self._endpoint.retries)
        if pause_s is None:
            raise refusal
        time.sleep(pause_s)

    @staticmethod
    def _reported(watch: Watch, on_progress: Callable[[Progress], None]) -> AttackAnswer:
        results: dict[int, AttackResult] = {}
        with watch:
            for event in watch:
                if isinstance(event, Progress):
                    on_progress(event)
                else:
                    results[event.sample] = event
        return response.watched_answer(results, watch.summary)
