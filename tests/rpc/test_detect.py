"""DetectService and the guard of ClassifyService, through a real server and a real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
import torch

from iguana.v1 import classify_pb2, detect_pb2, manifest_pb2, model_pb2, verdict_pb2
from iguana_server.detectors.base import Evidence
from tests.detectors.waves import SHA256, safety_net
from tests.rpc.service import LIMITS, Service, file, pixels, serving, small_model, tensor, tensors

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = small_model()
N = 5


NET = safety_net(MODEL)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded() -> AsyncIterator[Service]:
    async with serving(MODEL, nets={"small": NET}) as running:
        yield running


def request(n: int = N, **fields: Any) -> detect_pb2.DetectRequest:
    return detect_pb2.DetectRequest(model="small", images=tensors(n), **fields)


def smooth() -> np.ndarray[Any, np.dtype[np.uint8]]:
    height, width = MODEL.spec.shape[1:]
    ramp = np.linspace(60, 190, width)[None, :, None] + np.linspace(-30, 30, height)[:, None, None]
    return np.repeat(ramp, 3, 2).astype(np.uint8)


async def test_detection_is_what_the_detectors_say(guarded: Service) -> None:
    reply = await guarded.detect.Detect(request())
    x = torch.from_numpy(pixels(N).astype(np.float32) / np.float32(255)).permute(0, 3, 1, 2)
    screen = NET.screen((), 0)
    scores = screen.panel.examine(MODEL, x)
    plain = await guarded.classify.Classify(classify_pb2.ClassifyRequest(model="small", images=tensors(N)))
    assert len(reply.detections) == N
    for i, detection in enumerate(reply.detections):
        verdict = detection.verdict
        assert [mark.detector for mark in verdict.marks] == list(NET.detectors)
        for mark in verdict.marks:
            assert mark.score == pytest.approx(float(scores[mark.detector][i]), rel=1e-3, abs=1e-5)
            assert mark.threshold == pytest.approx(NET.calibration.threshold(mark.detector, 0.05))
            assert mark.flagged == (mark.score > mark.threshold)
        assert verdict.false_positive_rate == 0.05
        assert verdict.flagged == (verdict.p_value <= 0.05)
        assert detection.classification == plain.classifications[i]
    assert reply.manifest.calibration_sha256 == SHA256
    assert plain.manifest.calibration_sha256 == ""
    reply.manifest.calibration_sha256 = ""
    assert reply.manifest == plain.manifest


async def test_noise_is_flagged_and_a_clean_picture_is_not(guarded: Service) -> None:
    images = [tensor(smooth()), *tensors(1)]
    reply = await guarded.detect.Detect(detect_pb2.DetectRequest(model="small", images=images))
    assert [d.verdict.flagged for d in reply.detections] == [False, True]


async def test_detection_does_not_depend_on_the_company(guarded: Service) -> None:
    alone = [
        await guarded.detect.Detect(detect_pb2.DetectRequest(model="small", images=[image]))
        for image in tensors(N)
    ]
    others: list[Any] = [
        *(guarded.detect.Detect(request(3, guard=verdict_pb2.Guard(detectors=["lid"]))) for _ in range(3)),
        *(
            guarded.classify.Classify(classify_pb2.ClassifyRequest(model="small", images=tensors(4)))
            for _ in range(3)
        ),
    ]
    together = await guarded.detect.Detect(request())
    for other in others:
        await other
    assert list(together.detections) == [one.detections[0] for one in alone]


async def test_detectors_and_rate_can_be_chosen(guarded: Service) -> None:
    guard = verdict_pb2.Guard(detectors=["transform", "lid"], false_positive_rate=0.2)
    reply = await guarded.detect.Detect(request(guard=guard, top_k=2))
    for detection in reply.detections:
        assert [mark.detector for mark in detection.verdict.marks] == ["transform", "lid"]
        assert detection.verdict.false_positive_rate == 0.2
        assert len(detection.classification.top) == 2
        for mark in detection.verdict.marks:
            assert mark.threshold == pytest.approx(NET.calibration.threshold(mark.detector, 0.2))


async def test_guard_refuses_what_is_flagged_and_classifies_the_rest(guarded: Service) -> None:
    images = [tensor(smooth()), *tensors(2)]
    plain = await guarded.classify.Classify(
        classify_pb2.ClassifyRequest(model="small", images=images, logits=True)
    )
    reply = await guarded.classify.Classify(
        classify_pb2.ClassifyRequest(model="small", images=images, logits=True, guard=verdict_pb2.Guard())
    )
    detected = await guarded.detect.Detect(detect_pb2.DetectRequest(model="small", images=images))
    assert reply.classifications[0] == plain.classifications[0]
    for i in (1, 2):
        refused = reply.classifications[i]
        assert not refused.top
        assert not refused.HasField("logits")
        assert refused.refusal.verdict == detected.detections[i].verdict
        flagged = [mark.detector for mark in refused.refusal.verdict.marks if mark.flagged]
        assert flagged
        assert [part.partition(":")[0] for part in refused.refusal.reason.split("; ")] == [
            "detectors",
            *flagged,
        ]
        assert "want a p-value above 0.05, got 0.0" in refused.refusal.reason
        assert "want a score of at most" in refused.refusal.reason
    assert reply.manifest.calibration_sha256 == SHA256


async def test_stream_answers_each_item_and_refuses_the_bad(guarded: Service) -> None:
    items = [
        detect_pb2.StreamDetectRequest(id="a", request=request(2)),
        detect_pb2.StreamDetectRequest(id="b", request=request(1, guard=verdict_pb2.Guard(detectors=["x"]))),
        detect_pb2.StreamDetectRequest(id="c", request=request(1)),
    ]
    replies = {reply.id: reply async for reply in guarded.detect.StreamDetect(iter(items))}
    assert set(replies) == {"a", "b", "c"}
    assert replies["a"].response == await guarded.detect.Detect(request(2))
    assert len(replies["c"].response.detections) == 1
    failure = replies["b"].failure
    assert failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert failure.violations[0].field == "request.guard.detectors[0]"


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"guard": verdict_pb2.Guard(detectors=["sqeeze"])}, r"guard.detectors\[0\]: want one of .*lid, .*\(close: squeeze\)"),
        ({"guard": verdict_pb2.Guard(detectors=["lid", "lid"])}, r"guard.detectors\[1\]: want each detector once, got lid"),
        ({"guard": verdict_pb2.Guard(false_positive_rate=0.001)}, r"guard.false_positive_rate: want 0.01 .* to 0.5, got 0.001"),
        ({"guard": verdict_pb2.Guard(false_positive_rate=-1)}, r"guard.false_positive_rate: want"),
        ({"top_k": 1001}, r"top_k: want 1..1000, got 1001"),
        ({"determinism": 7}, r"determinism: want"),
    ],
)  # fmt: skip
async def test_faults_are_refused_by_name(guarded: Service, fields: dict[str, Any], want: str) -> None:
    calls: tuple[tuple[Any, Any], ...] = (
        (guarded.detect.Detect, detect_pb2.DetectRequest),
        (guarded.classify.Classify, classify_pb2.ClassifyRequest),
    )
    for call, made in calls:
        with pytest.raises(grpc.aio.AioRpcError, match=want) as refused:
            await call(made(model="small", images=tensors(1), **fields))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_model_without_detectors_refuses(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"guard: want a model that has detectors") as refused:
        await service.detect.Detect(request())
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await service.detect.Detect(detect_pb2.DetectRequest(model="smal", images=tensors(1)))
    assert missing.value.code() == grpc.StatusCode.NOT_FOUND


async def test_views_are_counted_as_work_and_as_memory() -> None:
    limits = replace(LIMITS, max_waiting_cost=3 * MODEL.spec.shape[0] * 12 * 14)
    async with serving(MODEL, nets={"small": NET}, limits=limits) as tight:
        await tight.classify.Classify(classify_pb2.ClassifyRequest(model="small", images=tensors(3)))
        with pytest.raises(grpc.aio.AioRpcError, match="pixels x steps"):
            await tight.detect.Detect(request(1))
    room = replace(LIMITS, max_image_memory=4 * 4 * MODEL.spec.shape[0] * 12 * 14)
    async with serving(MODEL, nets={"small": NET}, limits=room) as tight:
        await tight.classify.Classify(classify_pb2.ClassifyRequest(model="small", images=tensors(3)))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await tight.detect.Detect(request(1))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_pictures_of_files_are_judged_like_their_pixels(guarded: Service) -> None:
    height, width = MODEL.spec.shape[1:]
    side = MODEL.spec.resize
    (square,) = pixels(1, shape=(3, side, side))
    top, left = (side - height) // 2, (side - width) // 2
    encoded = detect_pb2.DetectRequest(model="small")
    encoded.images.add(encoded=file(square))
    cut = np.ascontiguousarray(square[top : top + height, left : left + width])
    plain = detect_pb2.DetectRequest(model="small", images=[tensor(cut)])
    assert await guarded.detect.Detect(encoded) == await guarded.detect.Detect(plain)


async def test_listing_tells_the_detectors_and_what_they_are_held_to(
    guarded: Service, service: Service
) -> None:
    (listed,) = (await guarded.model.ListModels(model_pb2.ListModelsRequest())).models
    assert [one.name for one in listed.detectors] == list(NET.detectors)
    for one in listed.detectors:
        assert one.threshold == pytest.approx(NET.calibration.threshold(one.name, 0.05))
        assert one.looks == NET.detectors[one.name].looks
        assert "arXiv" in one.description
    said = listed.calibration
    assert (said.pictures, said.data, said.rate, said.sha256) == (99, "waves", 0.05, SHA256)
    assert said.least_rate == pytest.approx(0.01)
    (bare,) = (await service.model.ListModels(model_pb2.ListModelsRequest())).models
    assert not bare.detectors
    assert not bare.HasField("calibration")


async def test_fast_is_near_strict(guarded: Service) -> None:
    strict = await guarded.detect.Detect(request())
    fast = await guarded.detect.Detect(request(determinism=manifest_pb2.DETERMINISM_FAST))
    for a, b in zip(strict.detections, fast.detections, strict=True):
        for one, other in zip(a.verdict.marks, b.verdict.marks, strict=True):
            assert one.score == pytest.approx(other.score, rel=1e-3, abs=1e-5)


async def test_what_cannot_be_judged_does_not_pass(guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Evidence) -> torch.Tensor:
        return torch.full((1,), torch.nan)

    monkeypatch.setattr(NET.detectors["lid"], "score", broken)
    for call, made in ((guarded.detect.Detect, detect_pb2.DetectRequest), (guarded.classify.Classify, classify_pb2.ClassifyRequest)):  # fmt: skip
        ask: Any = call
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await ask(made(model="small", images=tensors(1), guard=verdict_pb2.Guard()))
        assert failed.value.code() == grpc.StatusCode.INTERNAL
