"""What the services answer, through a real server and a real engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import torch
from torch import nn

from iguana.v1 import attack_pb2, classify_pb2, image_pb2, manifest_pb2, model_pb2
from iguana_server.attacks.catalog import ATTACKS, CATALOG
from iguana_server.models.base import Model
from tests.rpc.service import (
    CLASSES,
    LIMITS,
    Service,
    file,
    opened,
    pixels,
    serving,
    small_model,
    tensor,
    tensors,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEPS = {name for name, attack in ATTACKS.items() if "steps" in attack.parameters()}
QUERIES = {name for name, attack in ATTACKS.items() if "queries" in attack.parameters()}


def attack(name: str = "pgd", n: int = 2, **fields: Any) -> attack_pb2.AttackRequest:
    parameters = fields.pop(
        "method", {"steps": [4]} if name in STEPS else {"queries": [60]} if name in QUERIES else {}
    )
    made = attack_pb2.AttackRequest(model="small", images=tensors(n), **fields)
    method = getattr(made, name)
    method.SetInParent()
    for key, value in parameters.items():
        if isinstance(value, list):
            getattr(method, key).extend(value)
        else:
            setattr(method, key, value)
    return made


def target(index: int) -> attack_pb2.Goal:
    return attack_pb2.Goal(targeted=attack_pb2.Targeted(target=attack_pb2.ClassRef(index=index)))


async def logits(service: Service, images: list[image_pb2.Image]) -> np.ndarray[Any, Any]:
    reply = await service.classify.Classify(
        classify_pb2.ClassifyRequest(model="small", images=images, logits=True)
    )
    return np.stack([np.frombuffer(c.logits.data, "<f4") for c in reply.classifications])


async def test_classification_is_what_the_model_says(service: Service) -> None:
    arrays = pixels(3)
    reply = await service.classify.Classify(
        classify_pb2.ClassifyRequest(model="small", images=[tensor(a) for a in arrays], top_k=2, logits=True)
    )
    x = torch.from_numpy(arrays.astype(np.float32) / np.float32(255)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        want = small_model()(x)
    for classification, line in zip(reply.classifications, want, strict=True):
        assert np.allclose(np.frombuffer(classification.logits.data, "<f4"), line.numpy(), atol=1e-5)
        assert list(classification.logits.shape) == [len(CLASSES)]
        order = line.argsort(descending=True)[:2].tolist()
        assert [score.index for score in classification.top] == order
        assert [score.name for score in classification.top] == [CLASSES[k] for k in order]
        assert np.allclose(
            [score.probability for score in classification.top], line.softmax(0)[order].numpy(), atol=1e-6
        )


async def test_classification_lists_five_classes_or_all_there_are() -> None:
    many = tuple(f"class {k}" for k in range(9))
    async with serving(small_model(), small_model("many", classes=many)) as service:
        for model, asked, listed in (("small", 0, 5), ("small", 1000, 5), ("many", 0, 5), ("many", 7, 7)):
            reply = await service.classify.Classify(
                classify_pb2.ClassifyRequest(model=model, images=tensors(1), top_k=asked)
            )
            (classification,) = reply.classifications
            assert len(classification.top) == listed
            assert not classification.HasField("logits")


async def test_manifest_tells_model_and_determinism(service: Service) -> None:
    for asked, used, bucket in (
        (manifest_pb2.DETERMINISM_UNSPECIFIED, manifest_pb2.DETERMINISM_STRICT, 4),
        (manifest_pb2.DETERMINISM_FAST, manifest_pb2.DETERMINISM_FAST, 0),
    ):
        reply = await service.classify.Classify(
            classify_pb2.ClassifyRequest(model="small", images=tensors(1), determinism=asked)
        )
        run = reply.manifest
        assert (run.model, run.model_sha256, run.determinism, run.bucket) == (
            "small",
            "a1" * 32,
            used,
            bucket,
        )
        assert run.device == "cpu"
        assert set(run.versions) == {"iguana", "torch", "python"}


async def test_models_that_give_nan_are_an_internal_error() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) / 0 * torch.tensor([0.0, 1.0, 1.0])

    spec = replace(small_model().spec, name="broken", classes=("a", "b", "c"))
    model = Model.__new__(Model)  # registration would refuse it
    model.spec, model.sha256, model.device = spec, "0" * 64, torch.device("cpu")
    model.sizes = (spec.bucket,)
    model.net, model._scale, model._bias = Broken(), torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1, 1)
    async with serving(model) as service:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await service.classify.Classify(classify_pb2.ClassifyRequest(model="broken", images=tensors(1)))
        assert failed.value.code() == grpc.StatusCode.INTERNAL
        request = attack(n=2)
        request.model = "broken"
        reply = await service.attack.Attack(request)
        for result in reply.results:
            assert result.outcome == attack_pb2.OUTCOME_FAILED
            assert result.ended == attack_pb2.ENDED_NON_FINITE
            assert not result.HasField("image")
            assert "NaN or infinity" in result.reason


@pytest.mark.parametrize("name", ATTACKS)
async def test_every_attack_delivers_what_was_judged(service: Service, name: str) -> None:
    """The picture file, sent back, has the very logits that were judged, and lies in the ball."""
    request = attack(name, n=3, return_clean=True, stop_on=attack_pb2.STOP_ON_NEVER, seed=5)
    reply = await service.attack.Attack(request)
    assert [result.sample for result in reply.results] == [0, 1, 2]
    arrays = pixels(3)
    forged = await logits(service, [tensor(opened(result.image)) for result in reply.results])
    before = await logits(service, tensors(3))
    for i, result in enumerate(reply.results):
        assert np.array_equal(opened(result.clean), arrays[i])
        assert result.image.WhichOneof("kind") == "encoded"
        change = (opened(result.image).astype(np.float64) - arrays[i]) / 255
        norms = result.norms
        assert np.isclose(norms.linf, np.abs(change).max(), atol=1e-6)
        assert np.isclose(norms.l2, np.sqrt((change**2).sum()), rtol=1e-5)
        assert np.isclose(norms.l1, np.abs(change).sum(), rtol=1e-5)
        assert norms.l0 == np.count_nonzero(change)
        if ATTACKS[name].norm == "linf":
            assert norms.linf <= 8 / 255 + 1e-6
        scores = np.exp(forged[i].astype(np.float64) - forged[i].max())
        top = result.after.top[0]
        assert top.index == forged[i].argmax()
        assert np.isclose(top.probability, scores.max() / scores.sum(), atol=1e-6)
        assert result.before.top[0].index == before[i].argmax()
        fooled = forged[i].argmax() != before[i].argmax()
        assert result.outcome == (attack_pb2.OUTCOME_FOOLED if fooled else attack_pb2.OUTCOME_HELD)
        assert (result.margin > 0) == fooled
        assert result.ended == attack_pb2.ENDED_STEPS
        assert result.forward > 0
        assert (result.backward > 0) == ATTACKS[name].gradient


async def test_equal_requests_get_equal_bytes(service: Service) -> None:
    request = attack(method={"steps": [3], "random_start": [True], "restarts": 3}, seed=2**64 - 1)
    first, second = await asyncio.gather(service.attack.Attack(request), service.attack.Attack(request))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    request.seed = 1
    other = await service.attack.Attack(request)
    assert other.results[0].image != first.results[0].image


async def test_goals_are_met_by_index_or_name(service: Service) -> None:
    named = attack_pb2.Goal(targeted=attack_pb2.Targeted(target=attack_pb2.ClassRef(name=" ANOLE")))
    reply = await service.attack.Attack(
        attack(goals=[named, target(4)], method={"epsilon": [1], "alpha": [0.1], "steps": [30]})
    )
    assert [result.after.top[0].index for result in reply.results] == [1, 4]


async def test_sample_that_is_there_already_is_left_alone(service: Service) -> None:
    clean = (await logits(service, tensors(1)))[0].argmax()
    reply = await service.attack.Attack(attack(n=1, goals=[target(int(clean))]))
    (result,) = reply.results
    assert result.outcome == attack_pb2.OUTCOME_ALREADY
    assert result.ended == attack_pb2.ENDED_ALREADY
    assert np.array_equal(opened(result.image), pixels(1)[0])
    assert result.norms == attack_pb2.Norms()


async def test_encodings_deliver_the_same_pixels(service: Service) -> None:
    as_file = await service.attack.Attack(attack())
    as_tensor = await service.attack.Attack(attack(encoding=image_pb2.ENCODING_TENSOR))
    for one, other in zip(as_file.results, as_tensor.results, strict=True):
        assert other.image.tensor.dtype == image_pb2.DTYPE_UINT8
        assert np.array_equal(opened(one.image), opened(other.image))


async def test_float_grid_delivers_floats(service: Service) -> None:
    request = attack(
        output_grid=attack_pb2.OUTPUT_GRID_FLOAT, encoding=image_pb2.ENCODING_TENSOR, return_clean=True
    )
    request.pgd.epsilon.append(0.01)
    reply = await service.attack.Attack(request)
    clean = pixels(2).astype(np.float32) / np.float32(255)
    for i, result in enumerate(reply.results):
        forged = opened(result.image)
        assert forged.dtype == np.float32
        assert not np.array_equal(np.rint(forged * 255) / 255, forged)
        assert np.abs(forged - clean[i]).max() <= 0.01 + 1e-6
        assert np.array_equal(opened(result.clean), clean[i])


async def test_clean_image_off_the_grid_needs_the_float_grid(service: Service) -> None:
    array = np.random.default_rng(3).random((12, 14, 3), dtype=np.float32)
    request = attack(n=2, return_clean=True)
    request.images[1].CopyFrom(tensor(array))
    with pytest.raises(
        grpc.aio.AioRpcError,
        match=r"output_grid: want OUTPUT_GRID_FLOAT, as images\[1\] lies off the 8-bit grid, got OUTPUT_GRID_UINT8",
    ):
        await service.attack.Attack(request)
    request.output_grid, request.encoding = attack_pb2.OUTPUT_GRID_FLOAT, image_pb2.ENCODING_TENSOR
    result = (await service.attack.Attack(request)).results[1]
    assert np.array_equal(opened(result.clean), array)


async def test_parameters_are_each_samples_own(service: Service) -> None:
    reply = await service.attack.Attack(
        attack(method={"epsilon": [0, 0.5], "steps": [3, 5]}, stop_on=attack_pb2.STOP_ON_NEVER)
    )
    assert reply.results[0].norms.linf == 0
    assert reply.results[1].norms.linf > 0
    assert [result.backward for result in reply.results] == [3, 5]
    used = {p.name: list(p.values) for p in reply.manifest.parameters}
    assert used == {
        "epsilon": [0, 0.5],
        "alpha": [0, 0.25],  # 2.5 epsilon / steps, at most epsilon
        "steps": [3, 5],
        "random_start": [0, 0],
        "restarts": [1, 1],
    }


async def test_attack_manifest_tells_what_was_used(service: Service) -> None:
    plain = (await service.attack.Attack(attack())).manifest
    assert (plain.method, plain.seed, plain.loss) == ("pgd", 0, attack_pb2.LOSS_CROSS_ENTROPY)
    assert plain.stop_on == attack_pb2.STOP_ON_FIRST_SUCCESS
    assert plain.keep == attack_pb2.KEEP_BEST
    assert plain.output_grid == attack_pb2.OUTPUT_GRID_UINT8
    other = attack(
        seed=2**63,
        loss=attack_pb2.LOSS_DLR,
        stop_on=attack_pb2.STOP_ON_MARGIN,
        stop_margin=1,
        keep=attack_pb2.KEEP_LAST,
    )
    told = (await service.attack.Attack(other)).manifest
    for field in ("seed", "loss", "stop_on", "keep"):
        assert getattr(told, field) == getattr(other, field)


async def test_forge_takes_a_reference_for_all_or_one_a_sample(service: Service) -> None:
    reference = pixels(1, seed=9)[0]
    method = {"start": [attack_pb2.FORGE_START_REFERENCE], "steps": [1], "rate": [0]}
    still = {"stop_on": attack_pb2.STOP_ON_NEVER}
    one = await service.attack.Attack(
        attack("forge", method=method | {"reference": [tensor(reference)]}, **still)
    )
    for result in one.results:
        assert np.array_equal(opened(result.image), reference) or result.step == 0
    none = await service.attack.Attack(attack("forge", method=method, **still))
    for result, clean in zip(none.results, pixels(2), strict=True):
        assert np.array_equal(opened(result.image), clean)
    two = await service.attack.Attack(
        attack("forge", method=method | {"reference": tensors(2, seed=9)}, keep=attack_pb2.KEEP_LAST, **still)
    )
    for result, wanted in zip(two.results, pixels(2, seed=9), strict=True):
        assert np.array_equal(opened(result.image), wanted)


async def test_dlr_needs_enough_classes() -> None:
    async with serving(
        small_model("two", classes=("a", "b")), small_model("three", classes=("a", "b", "c"))
    ) as service:
        for model, goals, want in (("two", [], 3), ("three", [target(0)], 4)):
            request = attack(loss=attack_pb2.LOSS_DLR, goals=goals)
            request.model = model
            with pytest.raises(
                grpc.aio.AioRpcError, match=f"loss: want a model of {want} classes or more for LOSS_DLR"
            ):
                await service.attack.Attack(request)
        request = attack(loss=attack_pb2.LOSS_DLR)
        request.model = "three"
        assert len((await service.attack.Attack(request)).results) == 2


async def test_answer_that_could_not_be_sent_is_refused_first() -> None:
    limits = replace(LIMITS, max_reply_bytes=10_000)
    async with serving(limits=limits) as service:
        request = attack(n=6, return_clean=True)
        with pytest.raises(
            grpc.aio.AioRpcError, match=r"images: want at most \d images, for an answer of 10000 bytes, got 6"
        ):
            await service.attack.Attack(request)
        watched = [
            e async for e in service.attack.WatchAttack(attack_pb2.WatchAttackRequest(request=request))
        ]
        assert sum(event.HasField("result") for event in watched) == 6


@pytest.mark.parametrize("name", ["pgd", "forge"])
async def test_answers_are_never_larger_than_foreseen(service: Service, name: str) -> None:
    """Noise is the largest PNG: the limit on answers relies on this bound."""
    from iguana_server.rpc.result import Delivery  # noqa: PLC0415

    request = attack(name, n=6, return_clean=True, top_k=1000, stop_on=attack_pb2.STOP_ON_NEVER)
    reply = await service.attack.Attack(request)
    delivery = Delivery(on_grid=True, png=True, return_clean=True, top_k=1000)
    most = delivery.largest(small_model().spec)
    assert max(result.ByteSize() for result in reply.results) < most


async def test_watching_tells_progress_results_and_the_summary(service: Service) -> None:
    request = attack(n=3, method={"steps": [2, 4, 6]}, stop_on=attack_pb2.STOP_ON_NEVER)
    whole = await service.attack.Attack(request)
    events = [e async for e in service.attack.WatchAttack(attack_pb2.WatchAttackRequest(request=request))]
    kinds = [event.WhichOneof("kind") for event in events]
    assert kinds[-1] == "summary"
    assert kinds.count("summary") == 1
    assert "progress" in kinds
    results = {event.result.sample: event.result for event in events if event.HasField("result")}
    assert results == {result.sample: result for result in whole.results}
    last: dict[int, int] = {}
    for event in events:
        if event.HasField("progress"):
            told = event.progress
            assert told.sample not in last or told.step >= last[told.sample]
            assert told.steps == [2, 4, 6][told.sample]
            last[told.sample] = told.step
    summary = events[-1].summary
    assert summary.manifest == whole.manifest
    outcomes = [result.outcome for result in whole.results]
    assert summary.fooled == outcomes.count(attack_pb2.OUTCOME_FOOLED)
    assert summary.held == outcomes.count(attack_pb2.OUTCOME_HELD)


async def test_watcher_that_leaves_frees_its_rows(service: Service) -> None:
    request = attack(n=4, method={"steps": [50]}, stop_on=attack_pb2.STOP_ON_NEVER)
    call = service.attack.WatchAttack(attack_pb2.WatchAttackRequest(request=request))
    async for _ in call:
        call.cancel()
        break
    await quiet(service)


async def quiet(service: Service) -> None:
    """Wait until the engine has no row left; it must be soon."""
    for _ in range(200):
        if service.engine._queue.cost == 0 and not any(bench.rows() for bench in service.engine._benches):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("rows are left in the engine")


async def test_time_limit_delivers_the_best_so_far() -> None:
    async with serving(limits=replace(LIMITS, max_steps=10_000, max_waiting_cost=10**10)) as service:
        request = attack(n=4, method={"steps": [10_000]}, stop_on=attack_pb2.STOP_ON_NEVER, time_limit_s=0.2)
        reply = await service.attack.Attack(request, timeout=20)
        for result in reply.results:
            assert result.ended == attack_pb2.ENDED_TIME_LIMIT
            assert result.HasField("image")


async def test_files_are_fitted_to_the_model(service: Service) -> None:
    (array,) = pixels(1, shape=(3, 16, 16))
    cut = np.ascontiguousarray(array[2:14, 1:15])
    got = await logits(service, [image_pb2.Image(encoded=file(array)), tensor(cut)])
    assert np.array_equal(got[0], got[1])


async def test_models_and_limits_are_listed() -> None:
    async with serving(small_model("b"), small_model("a", classes=("x", "y"))) as service:
        reply = await service.model.ListModels(model_pb2.ListModelsRequest())
        assert [model.name for model in reply.models] == ["a", "b"]
        model = reply.models[1]
        assert tuple(model.classes) == CLASSES
        assert (model.input.height, model.input.width, model.input.channels, model.input.resize) == (
            12,
            14,
            3,
            16,
        )
        assert (model.bucket, model.max_batch, model.device) == (4, 8, "cpu")
        for field in model_pb2.Limits.DESCRIPTOR.fields:
            assert getattr(reply.limits, field.name) == getattr(LIMITS, field.name)


async def test_attacks_are_listed_by_name(service: Service) -> None:
    reply = await service.model.ListAttacks(model_pb2.ListAttacksRequest())
    assert [one.name for one in reply.attacks] == sorted(CATALOG)
