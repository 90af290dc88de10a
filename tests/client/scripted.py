"""A small real gRPC server that does what a test tells it, call by call, and then answers."""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from PIL import Image

from iguana.v1 import (
    attack_pb2,
    attack_pb2_grpc,
    classify_pb2,
    classify_pb2_grpc,
    detect_pb2,
    detect_pb2_grpc,
    error_pb2,
    image_pb2,
    manifest_pb2,
    model_pb2,
    model_pb2_grpc,
    verdict_pb2,
)

Act = Callable[[grpc.ServicerContext], None]


def refusal(
    code: grpc.StatusCode,
    text: str = "no",
    *,
    reason: str = "",
    violations: dict[str, str] | None = None,
    retry_after_s: float | None = None,
) -> bytes:
    """The bytes of a google.rpc.Status as the server sends them."""
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="iguana.v1")]
    if violations:
        bad = error_details_pb2.BadRequest()
        for field, description in violations.items():
            bad.field_violations.add(field=field, description=description)
        details.append(bad)
    if retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(retry_after_s * 1000))
        details.append(retry)
    packed = []
    for detail in details:
        any_message = AnyMessage()
        any_message.Pack(detail)
        packed.append(any_message)
    status: bytes = status_pb2.Status(code=code.value[0], message=text, details=packed).SerializeToString()
    return status


def refuse(
    code: grpc.StatusCode,
    text: str = "no",
    *,
    reason: str = "",
    violations: dict[str, str] | None = None,
    retry_after_s: float | None = None,
) -> Act:
    """End the call with a status and its details."""
    status = refusal(code, text, reason=reason, violations=violations, retry_after_s=retry_after_s)

    def act(context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", status),))
        context.abort(code, text)

    return act


def linger(seconds: float) -> Act:
    """Take long, unless the caller leaves."""

    def act(context: grpc.ServicerContext) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and context.is_active():
            time.sleep(0.005)

    return act


class Scripted(
    attack_pb2_grpc.AttackServiceServicer,
    classify_pb2_grpc.ClassifyServiceServicer,
    detect_pb2_grpc.DetectServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
    health_pb2_grpc.HealthServicer,  # type: ignore[misc]
):
    """Each call does the next of `acts` first. An item of a stream is refused or broken as its id says."""

    def __init__(self) -> None:
        self.acts: deque[Act] = deque()
        self.requests: list[Message] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.left = threading.Event()
        """Set when a call is over: long before its `linger` is, if the caller went away."""
        self.busy_once: set[str] = set()
        self.most_waiting = 0
        self.serving = True

    def begin(self, request: Message, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        context.add_callback(self.left.set)
        self.metadata.append({pair[0]: pair[1] for pair in context.invocation_metadata()})
        if self.acts:
            self.acts.popleft()(context)

    def Classify(
        self, request: classify_pb2.ClassifyRequest, context: grpc.ServicerContext
    ) -> classify_pb2.ClassifyResponse:
        self.begin(request, context)
        return classify_answer(request)

    def Detect(
        self, request: detect_pb2.DetectRequest, context: grpc.ServicerContext
    ) -> detect_pb2.DetectResponse:
        self.begin(request, context)
        return detect_answer(request)

    def StreamDetect(
        self, request_iterator: Iterator[detect_pb2.StreamDetectRequest], context: grpc.ServicerContext
    ) -> Iterator[detect_pb2.StreamDetectResponse]:
        self.begin(detect_pb2.StreamDetectRequest(), context)
        for item in request_iterator:
            failure = self.failure_of(item.id, context)
            if failure is not None:
                yield detect_pb2.StreamDetectResponse(id=item.id, failure=failure)
            else:
                yield detect_pb2.StreamDetectResponse(id=item.id, response=detect_answer(item.request))

    def Attack(
        self, request: attack_pb2.AttackRequest, context: grpc.ServicerContext
    ) -> attack_pb2.AttackResponse:
        self.begin(request, context)
        return attack_answer(request)

    def WatchAttack(
        self, request: attack_pb2.WatchAttackRequest, context: grpc.ServicerContext
    ) -> Iterator[attack_pb2.WatchAttackResponse]:
        self.begin(request, context)
        answer = attack_answer(request.request)
        for result in answer.results:
            for step in (1, 2):
                progress = attack_pb2.AttackProgress(sample=result.sample, step=step, steps=2, margin=step)
                yield attack_pb2.WatchAttackResponse(progress=progress)
                if self.acts:
                    self.acts.popleft()(context)
            yield attack_pb2.WatchAttackResponse(result=result)
        fooled = sum(r.outcome == attack_pb2.OUTCOME_FOOLED for r in answer.results)
        summary = attack_pb2.AttackSummary(fooled=fooled, manifest=answer.manifest)
        yield attack_pb2.WatchAttackResponse(summary=summary)

    def StreamAttack(
        self, request_iterator: Iterator[attack_pb2.StreamAttackRequest], context: grpc.ServicerContext
    ) -> Iterator[attack_pb2.StreamAttackResponse]:
        self.begin(attack_pb2.StreamAttackRequest(), context)
        for item in request_iterator:
            failure = self.failure_of(item.id, context)
            if failure is not None:
                yield attack_pb2.StreamAttackResponse(id=item.id, failure=failure)
            else:
                yield attack_pb2.StreamAttackResponse(id=item.id, response=attack_answer(item.request))

    def StreamClassify(
        self, request_iterator: Iterator[classify_pb2.StreamClassifyRequest], context: grpc.ServicerContext
    ) -> Iterator[classify_pb2.StreamClassifyResponse]:
        """Waits until the caller sends no more, then answers all that came, last first."""
        self.begin(classify_pb2.StreamClassifyRequest(), context)
        waiting: deque[classify_pb2.StreamClassifyRequest] = deque()
        ended = threading.Event()

        def read() -> None:
            waiting.extend(request_iterator)
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        while not (ended.is_set() and not waiting):
            ended.wait(0.1)
            self.most_waiting = max(self.most_waiting, len(waiting))
            while waiting:
                item = waiting.pop()
                yield classify_pb2.StreamClassifyResponse(id=item.id, response=classify_answer(item.request))

    def failure_of(self, item_id: str, context: grpc.ServicerContext) -> error_pb2.Failure | None:
        if item_id.startswith("bad"):
            violation = error_pb2.FieldViolation(field="pgd.epsilon", description="want [0, 1], got 8")
            return error_pb2.Failure(
                code=3,
                message="pgd.epsilon: want [0, 1], got 8",
                reason=error_pb2.ERROR_REASON_INVALID_FIELD,
                violations=[violation],
            )
        if item_id.startswith("late"):
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the stream has lasted too long")
        if item_id.startswith("full"):
            return error_pb2.Failure(code=8, message="full", retry_after_s=60)
        if item_id.startswith(("busy", "break")) and item_id not in self.busy_once:
            self.busy_once.add(item_id)
            if item_id.startswith("break"):
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            return error_pb2.Failure(code=8, message="busy", retry_after_s=0.02)
        return None

    def ListModels(
        self, request: model_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> model_pb2.ListModelsResponse:
        self.begin(request, context)
        taken = model_pb2.Input(height=4, width=4, channels=3, resize=5, mean=[0.5] * 3, std=[0.25] * 3)
        model = model_pb2.Model(name="net", description="a net", input=taken, classes=CLASSES, device="cpu")
        model.detectors.add(name="squeeze", description="fewer bits", threshold=0.5, looks=2)
        model.calibration.MergeFrom(
            model_pb2.Calibration(pictures=99, data="waves", rate=0.05, least_rate=0.01, sha256="cd")
        )
        return model_pb2.ListModelsResponse(models=[model], limits=model_pb2.Limits(max_images=64))

    def ListAttacks(
        self, request: model_pb2.ListAttacksRequest, context: grpc.ServicerContext
    ) -> model_pb2.ListAttacksResponse:
        self.begin(request, context)
        epsilon = model_pb2.Parameter(
            name="epsilon", kind="float", low=0, high=1, default_value=8 / 255, description="radius"
        )
        start = model_pb2.Parameter(name="start", kind="choice", default_value=1, choices=["image", "noise"])
        attack = model_pb2.Attack(name="pgd", description="Madry", parameters=[epsilon, start], loss="margin")
        return model_pb2.ListAttacksResponse(attacks=[attack])

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service == "unknown":
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        served = health_pb2.HealthCheckResponse
        return served(status=served.SERVING if self.serving else served.NOT_SERVING)


CLASSES = ("tabby, tabby cat", "common iguana, iguana", "fox")


def classify_answer(request: classify_pb2.ClassifyRequest) -> classify_pb2.ClassifyResponse:
    """Every picture is a tabby."""
    answer = classify_pb2.ClassifyResponse(manifest=manifest(request.model))
    if request.HasField("guard"):  # refuses every picture
        for _ in request.images:
            refusal = answer.classifications.add().refusal
            refusal.reason = "squeeze: want a score of at most 0.5, got 1.5"
            refusal.verdict.CopyFrom(verdict(request.guard, 1))
        return answer
    for _ in request.images:
        classification = answer.classifications.add(top=scores(0, request.top_k))
        if request.logits:
            logits = np.array([3, 2, 1], "<f4")
            classification.logits.CopyFrom(
                image_pb2.Tensor(data=logits.tobytes(), dtype=image_pb2.DTYPE_FLOAT32, shape=[3])
            )
    return answer


def detect_answer(request: detect_pb2.DetectRequest) -> detect_pb2.DetectResponse:
    """Every other picture is flagged, the first is not."""
    answer = detect_pb2.DetectResponse(manifest=manifest(request.model))
    answer.manifest.calibration_sha256 = "cd" * 32
    for i, _ in enumerate(request.images):
        answer.detections.add(
            verdict=verdict(request.guard, i % 2),
            classification=classify_pb2.Classification(top=scores(0, request.top_k)),
        )
    return answer


def verdict(guard: verdict_pb2.Guard, flagged: int) -> verdict_pb2.Verdict:
    names = guard.detectors or ["squeeze", "transform"]
    return verdict_pb2.Verdict(
        flagged=bool(flagged),
        p_value=0.01 if flagged else 0.5,
        false_positive_rate=guard.false_positive_rate or 0.05,
        marks=[
            verdict_pb2.Mark(
                detector=name, score=0.25 + flagged, threshold=0.5, flagged=bool(flagged), p_value=0.125
            )
            for name in names
        ],
    )


def attack_answer(request: attack_pb2.AttackRequest) -> attack_pb2.AttackResponse:
    """Targeted attacks fool, one grey level brighter; untargeted ones hold."""
    method = request.WhichOneof("method") or ""
    run = attack_pb2.AttackManifest(
        run=manifest(request.model),
        method=method,
        parameters=[attack_pb2.UsedParameter(name="epsilon", values=[0.5] * len(request.images))],
        seed=request.seed,
        loss=request.loss or attack_pb2.LOSS_CROSS_ENTROPY,
        stop_on=request.stop_on or attack_pb2.STOP_ON_FIRST_SUCCESS,
        keep=request.keep,
        output_grid=request.output_grid,
    )
    answer = attack_pb2.AttackResponse(manifest=run)
    targeted = any(goal.HasField("targeted") for goal in request.goals)
    for i, image in enumerate(request.images):
        with Image.open(io.BytesIO(image.encoded)) as opened:
            clean = np.asarray(opened.convert("RGB"))
        result = answer.results.add(
            sample=i,
            outcome=attack_pb2.OUTCOME_FOOLED if targeted else attack_pb2.OUTCOME_HELD,
            ended=attack_pb2.ENDED_STEPS,
            image=image_pb2.Image(encoded=png(clean + np.uint8(1))),
            before=classify_pb2.Classification(top=scores(0, request.top_k)),
            after=classify_pb2.Classification(top=scores(1, request.top_k)),
            norms=attack_pb2.Norms(linf=1 / 255, l2=0.25, l1=1.5, l0=clean.size),
            margin=1.5 if targeted else -1.5,
            step=2,
            forward=3,
            backward=2,
        )
        if request.return_clean:
            result.clean.encoded = png(clean)
        if request.victim:
            result.transfer.CopyFrom(
                attack_pb2.Transfer(before=result.before, after=result.after, fooled=targeted)
            )
        if request.HasField("evade"):
            result.evasion.before.CopyFrom(verdict_pb2.Verdict(p_value=0.75, false_positive_rate=0.05))
            result.evasion.after.CopyFrom(verdict_pb2.Verdict(p_value=0.125, false_positive_rate=0.05))
            run.evade.CopyFrom(request.evade)
            run.evade.balance = request.evade.balance or attack_pb2.BALANCE_JOINT
        if request.diagnose:
            result.diagnosis.suspicions.append(attack_pb2.SUSPICION_NOISE_WINS)
    return answer


def scores(best: int, top_k: int) -> list[classify_pb2.ClassScore]:
    order = [best] + [i for i in range(len(CLASSES)) if i != best]
    return [
        classify_pb2.ClassScore(index=i, name=CLASSES[i], probability=p)
        for i, p in zip(order, (0.7, 0.2, 0.1), strict=True)
    ][: top_k or 5]


def manifest(model: str) -> manifest_pb2.Manifest:
    return manifest_pb2.Manifest(
        model=model,
        model_sha256="ab" * 32,
        determinism=manifest_pb2.DETERMINISM_STRICT,
        bucket=8,
        device="cpu",
        versions={"iguana": "0.1.0"},
    )


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def serve(
    scripted: Scripted, address: str = "127.0.0.1:0", *, max_bytes: int = 8 << 20
) -> tuple[grpc.Server, str]:
    """Start a server; its target. It tolerates pings as the real one does."""
    server = grpc.server(
        ThreadPoolExecutor(16),
        options=[
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ("grpc.so_reuseport", 0),
        ],
    )
    attack_pb2_grpc.add_AttackServiceServicer_to_server(scripted, server)
    classify_pb2_grpc.add_ClassifyServiceServicer_to_server(scripted, server)
    detect_pb2_grpc.add_DetectServiceServicer_to_server(scripted, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(scripted, server)
    health_pb2_grpc.add_HealthServicer_to_server(scripted, server)
    port = server.add_insecure_port(address)
    server.start()
    return server, f"127.0.0.1:{port}"
