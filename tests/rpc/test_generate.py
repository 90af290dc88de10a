"""GenerateService over a real channel."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
import torch
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from iguana.v1 import attack_pb2, generate_pb2, image_pb2, manifest_pb2
from iguana_server.generators.codes import from_seeds, labels_of
from tests.made import CLASSES, LATENT, small_generator
from tests.rpc.service import LIMITS, Service, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENSOR = image_pb2.ENCODING_TENSOR


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    networks = (
        small_generator(),
        small_generator("clothes", conditional=True),
        small_generator("blind", critic=False),
    )
    async with serving(networks=networks) as running:
        yield running


def ask(model: str = "small-faces", **fields: Any) -> generate_pb2.GenerateRequest:
    return generate_pb2.GenerateRequest(model=model, encoding=TENSOR, **fields)


def pixels(image: image_pb2.Image) -> NDArray[np.uint8]:
    if image.WhichOneof("kind") == "encoded":
        return np.asarray(Image.open(io.BytesIO(image.encoded)))
    return np.frombuffer(image.tensor.data, np.uint8).reshape(tuple(image.tensor.shape))


def latent(tensor: image_pb2.Tensor) -> NDArray[np.float32]:
    return np.frombuffer(tensor.data, "<f4").reshape(tuple(tensor.shape))


def floats(array: Any) -> image_pb2.Tensor:
    array = np.asarray(array, "<f4")
    return image_pb2.Tensor(data=array.tobytes(), dtype=image_pb2.DTYPE_FLOAT32, shape=array.shape)


async def test_pictures_of_seeds_are_the_generators(service: Service) -> None:
    reply = await service.generate.Generate(ask(seeds=[5, 6, 2**64 - 1], return_latents=True))
    z = from_seeds([5, 6, 2**64 - 1], LATENT)
    want = (small_generator()(z, z) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for i, made in enumerate(reply.pictures):
        assert made.sample == i
        assert not made.HasField("label")
        assert np.array_equal(latent(made.latent), z[i].numpy())
        assert np.abs(pixels(made.image).astype(int) - want[i]).max() <= 1
    assert reply.manifest.model == "small-faces"
    assert reply.manifest.determinism == manifest_pb2.DETERMINISM_STRICT
    assert reply.manifest.bucket == 4


async def test_a_file_holds_the_same_pixels_as_a_tensor(service: Service) -> None:
    raw = await service.generate.Generate(ask(seeds=[1, 2]))
    file = await service.generate.Generate(generate_pb2.GenerateRequest(model="small-faces", seeds=[1, 2]))
    for a, b in zip(raw.pictures, file.pictures, strict=True):
        assert b.image.encoded.startswith(b"\x89PNG")
        assert np.array_equal(pixels(a.image), pixels(b.image))


async def test_seeds_latents_and_expressions_agree(service: Service) -> None:
    seeds = await service.generate.Generate(ask(seeds=[3, 4], return_latents=True))
    z = np.stack([latent(made.latent) for made in seeds.pictures])
    latents = await service.generate.Generate(ask(latents=floats(z)))
    codes = [generate_pb2.Code(name="a", seed=3), generate_pb2.Code(name="b", latent=floats(z[1]))]
    named = await service.generate.Generate(ask(codes=codes, expressions=["a", "b"]))
    for one, two, three in zip(seeds.pictures, latents.pictures, named.pictures, strict=True):
        assert one.image == two.image == three.image


async def test_names_hold_for_the_expressions_behind_them(service: Service) -> None:
    expressions = ["glasses = seed(1) - seed(2)", "seed(3) + glasses", "slerp(seed(3), seed(4), 3) + glasses"]
    reply = await service.generate.Generate(ask(expressions=expressions, return_latents=True))
    assert [(p.sample, p.expression, p.frame) for p in reply.pictures] == [
        (0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 2, 1), (4, 2, 2),
    ]  # fmt: skip
    assert np.array_equal(latent(reply.pictures[1].latent), latent(reply.pictures[2].latent))


async def test_classes_are_asked_for_or_drawn(service: Service) -> None:
    drawn = await service.generate.Generate(ask("clothes", seeds=range(6)))
    want = labels_of(range(6), len(CLASSES)).tolist()
    assert [made.label.index for made in drawn.pictures] == want
    labels = [attack_pb2.ClassRef(name=CLASSES[label]) for label in want]
    asked = await service.generate.Generate(ask("clothes", seeds=range(6), labels=labels))
    assert list(asked.pictures) == list(drawn.pictures)
    one = await service.generate.Generate(ask("clothes", seeds=[0], labels=[attack_pb2.ClassRef(index=2)]))
    assert one.pictures[0].label.index == 2


async def test_a_stream_delivers_every_picture_and_a_summary(service: Service) -> None:
    whole = await service.generate.Generate(ask(seeds=range(6)))
    watch = generate_pb2.WatchGenerateRequest(request=ask(seeds=range(6)))
    messages = [message async for message in service.generate.WatchGenerate(watch)]
    pictures = {m.picture.sample: m.picture for m in messages[:-1]}
    assert [pictures[i] for i in range(6)] == list(whole.pictures)
    assert messages[-1].summary == generate_pb2.GenerateSummary(pictures=6, manifest=whole.manifest)


async def test_a_pipeline_answers_each_item_by_its_id(service: Service) -> None:
    async def items() -> AsyncIterator[generate_pb2.StreamGenerateRequest]:
        for i in range(9):
            request = ask(seeds=[i]) if i % 3 else ask(expressions=["a / b"])
            yield generate_pb2.StreamGenerateRequest(id=str(i), request=request)

    replies = {reply.id: reply async for reply in service.generate.StreamGenerate(items())}
    for i in range(9):
        if i % 3:
            alone = await service.generate.Generate(ask(seeds=[i]))
            assert replies[str(i)].response == alone
        else:
            assert "expressions[0]" in replies[str(i)].failure.message


async def test_a_picture_of_the_generator_is_inverted(service: Service) -> None:
    made = await service.generate.Generate(ask(seeds=[7, 8]))
    request = generate_pb2.InvertRequest(
        model="small-faces", images=[p.image for p in made.pictures], steps=[50], restarts=2, encoding=TENSOR
    )
    reply = await service.generate.Invert(request)
    assert [one.sample for one in reply.inversions] == [0, 1]
    for one, original in zip(reply.inversions, made.pictures, strict=True):
        assert one.error < 0.5 * one.first_error
        assert one.psnr == pytest.approx(-10 * np.log10(one.error))
        again = await service.generate.Generate(ask(latents=floats(latent(one.latent)[None])))
        assert again.pictures[0].image == one.image
        difference = pixels(one.image).astype(float) - pixels(original.image)
        assert (difference**2).mean() / 255**2 == pytest.approx(one.error, rel=0.05)
    assert await service.generate.Invert(request) == reply


async def test_the_discriminator_is_asked(service: Service) -> None:
    made = await service.generate.Generate(ask("clothes", seeds=range(4)))
    labels = [picture.label for picture in made.pictures]
    request = generate_pb2.ScoreRequest(
        model="clothes", images=[p.image for p in made.pictures], labels=labels
    )
    reply = await service.generate.Score(request)
    critic = small_generator(conditional=True).critic
    assert critic is not None
    x = torch.stack([torch.tensor(pixels(p.image)).permute(2, 0, 1) / 255 for p in made.pictures])
    want = critic(x, torch.tensor([label.index for label in labels]))
    assert torch.allclose(torch.tensor([s.logit for s in reply.scores]), want, atol=1e-4)
    assert torch.allclose(torch.tensor([s.probability for s in reply.scores]), want.sigmoid(), atol=1e-4)


async def test_a_seed_has_the_same_bytes_in_any_company_and_after_a_restart(service: Service) -> None:
    alone = [await service.generate.Generate(ask(seeds=[seed])) for seed in range(12)]
    crowd = [service.generate.Generate(ask(seeds=[seed])) for seed in range(12)]
    others = [service.generate.Generate(ask(seeds=range(6))) for _ in range(4)]
    for a, b in zip(alone, await asyncio.gather(*crowd), strict=True):
        assert a == b
    for reply in await asyncio.gather(*others):
        assert [p.image for p in reply.pictures] == [a.pictures[0].image for a in alone[:6]]
    async with serving(networks=[small_generator()]) as again:
        reply = await again.generate.Generate(ask(seeds=[5]))
        assert reply.pictures[0].image == alone[5].pictures[0].image


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({}, "seeds", "want one of seeds, latents and expressions, got none"),
    ({"seeds": [1], "expressions": ["seed(1)"]}, "seeds", "got seeds and expressions"),
    ({"seeds": range(7)}, "seeds", "want 1..6 pictures, got 7"),
    ({"seeds": [1], "codes": [generate_pb2.Code(name="a", seed=1)]}, "codes", "none without expressions, got 1"),
    ({"seeds": [1], "truncation": 0.01}, "truncation", "want 0 or [0.1, 10], got 0.01"),
    ({"seeds": [1], "truncation": float("nan")}, "truncation", "got nan"),
    ({"seeds": [1], "labels": [attack_pb2.ClassRef(index=0)]}, "labels", "want none, as small-faces has no classes, got 1"),
    ({"latents": floats(np.zeros((1, 11)))}, "latents.shape", "want [1..6, 12], got [1, 11]"),
    ({"latents": floats(np.zeros(12))}, "latents.shape", "want [1..6, 12], got [12]"),
    ({"latents": floats(np.zeros((7, 12)))}, "latents.shape", "want [1..6, 12], got [7, 12]"),
    ({"latents": floats(np.full((1, 12), np.nan))}, "latents.data", "want finite numbers, got NaN or infinity"),
    ({"latents": image_pb2.Tensor(shape=[1, 12], dtype=image_pb2.DTYPE_FLOAT32, data=b"x")}, "latents.data", "want 48 bytes, [1, 12] x 4, got 1"),
    ({"latents": image_pb2.Tensor(shape=[1, 12], dtype=image_pb2.DTYPE_UINT8, data=b"x" * 12)}, "latents.dtype", "want DTYPE_FLOAT32, got 1"),
    ({"expressions": ["man / 2"]}, "expressions[0]", "got '/' at character 5"),
    ({"expressions": ["seed(1)", "ghost"]}, "expressions[1]", "want a name that was given (none), got 'ghost'"),
    ({"expressions": ["1+" * 500_000 + "1"]}, "expressions[0]", "want at most 4096 characters, got 1000001"),
    ({"expressions": ["seed(1)"] * 7}, "expressions", "want 1..6 pictures, got 7"),
    ({"expressions": ["lerp(seed(1), seed(2), 4)"] * 2}, "expressions", "want at most 6 pictures in all, got 8 or more"),
    ({"expressions": ["a = seed(1)", "a = seed(2)"]}, "expressions[1]", "want each name once, got 'a' again"),
    ({"expressions": ["a"], "codes": [generate_pb2.Code(name="seed", seed=1)]}, "codes[0].name", "want a letter or _"),
    ({"expressions": ["a"], "codes": [generate_pb2.Code(name="a")]}, "codes[0]", "want seed or latent, got neither"),
    ({"expressions": ["a"], "codes": [generate_pb2.Code(name="a", latent=floats([1]))]}, "codes[0].latent.shape", "want [12], got [1]"),
    ({"expressions": ["a"], "codes": [generate_pb2.Code(name="a", seed=1)] * 2}, "codes[1].name", "want each name once"),
    ({"expressions": ["a"], "codes": [generate_pb2.Code(name="a", seed=1)] * 257}, "codes", "want at most 256, got 257"),
    ({"seeds": [1], "model": "Small"}, "model", "want a generator's name from ModelService.ListModels"),
    ({"seeds": [1], "model": "clothes", "labels": [attack_pb2.ClassRef(name="dog")]}, "labels[0].name", "want a class of clothes, got 'dog'"),
    ({"latents": floats(np.zeros((3, 12))), "model": "clothes"}, "labels", "want 1 or 3 classes, got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "field", "said"), WRONG, ids=[f"{w[1]}-{i}" for i, w in enumerate(WRONG)])
async def test_bad_requests_are_refused_by_name(
    service: Service, fields: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await service.generate.Generate(ask(**fields))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(refusal.value)[field].find(said) >= 0, violations(refusal.value)


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"images": []}, "images", "want 1..6 images, got 0"),
        ({"steps": [51]}, "steps", "want 1 value in [1, 50], got [51]"),
        ({"rate": [float("nan")]}, "rate", "want 1 value in [0, 1], got [nan]"),
        ({"prior": [2.0]}, "prior", "want 1 value in [0, 1], got [2.0]"),
        ({"restarts": 5}, "restarts", "want 1..4, got 5"),
        ({"labels": [attack_pb2.ClassRef(index=0)]}, "labels", "want none, as small-faces has no classes"),
        ({"encoding": 3}, "encoding", "want ENCODING_PNG or ENCODING_TENSOR, got 3"),
        ({"determinism": 3}, "determinism", "want DETERMINISM_STRICT or DETERMINISM_FAST, got 3"),
    ],
)
async def test_bad_inversions_are_refused_by_name(
    service: Service, fields: dict[str, Any], field: str, said: str
) -> None:
    made = await service.generate.Generate(ask(seeds=[1]))
    request = generate_pb2.InvertRequest(
        **({"model": "small-faces", "images": [made.pictures[0].image]} | fields)
    )
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await service.generate.Invert(request)
    assert said in violations(refusal.value)[field]


async def test_a_generator_without_a_discriminator_says_so(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await service.generate.Score(generate_pb2.ScoreRequest(model="blind"))
    assert "want a generator that has a discriminator" in violations(refusal.value)["model"]


async def test_a_name_that_is_close_is_suggested(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await service.generate.Generate(ask("small-face", seeds=[1]))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    assert "close: small-faces" in (refusal.value.details() or "")


async def test_an_answer_that_could_not_be_sent_is_refused_at_once() -> None:
    async with serving(networks=[small_generator()], limits=replace(LIMITS, max_reply_bytes=6000)) as service:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await service.generate.Generate(ask(seeds=range(6)))
        assert (
            "want at most 2 pictures, for an answer of 6000 bytes, got 6"
            in violations(refusal.value)["seeds"]
        )
        watch = generate_pb2.WatchGenerateRequest(request=ask(seeds=range(6)))
        assert len([message async for message in service.generate.WatchGenerate(watch)]) == 7


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """What a refusal says of each field."""
    found: dict[str, str] = {}
    for detail in rpc_status.from_call(error).details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            found |= {one.field: one.description for one in request.field_violations}
    return found
