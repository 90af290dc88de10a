"""Generation: the arguments as messages, and the answers as frozen values. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Required, TypedDict

import numpy as np
from numpy.typing import NDArray

from iguana import choice, parameter
from iguana.errors import invalid
from iguana.image import ImagesLike, Picture, from_image, from_tensor, to_images
from iguana.request import ClassLike, class_refs, determinism
from iguana.response import manifest_of
from iguana.result import Manifest
from iguana.v1 import generate_pb2, image_pb2

DEFAULT_GENERATOR = "fashion-mnist-gan"

Latent = NDArray[np.float32]


class GenerateOptions(TypedDict, total=False):
    """The keyword arguments of `Client.generate`: one of seeds, latents and expressions.

    | option      | default | meaning                                                                          |
    |-------------|---------|----------------------------------------------------------------------------------|
    | model       | "fashion-mnist-gan" | a generator's name from `Client.models().generators`                 |
    | seeds       | None    | a picture each                                                                   |
    | latents     | None    | codes, float32 [n, latent]; a picture each                                       |
    | expressions | None    | "man_glasses - man + woman", "slerp(a, b, 16)", ...: pictures, or paths of them  |
    | codes       | {}      | what expressions may name: a seed or a code [latent] by name                     |
    | labels      | None    | classes, by name or index, one or one a picture; None: seeds draw their own      |
    | truncation  | 0.0     | draw anew what lies beyond it: less variety, likelier pictures; 0: none          |
    | encoding    | "png"   | delivered as "png" or "tensor"                                                   |
    | strict      | True    | the same bytes in any company                                                    |
    | return_latents | False | deliver the codes, too                                                          |
    """

    model: str
    seeds: int | Iterable[int] | None
    latents: Any
    expressions: str | Sequence[str] | None
    codes: Mapping[str, Any]
    labels: ClassLike | Sequence[ClassLike] | None
    truncation: float
    encoding: str
    strict: bool
    return_latents: bool


class InvertItem(TypedDict, total=False):
    """The arguments of `Client.invert`; numbers once or once a picture, None for the server's default."""

    images: Required[ImagesLike]
    model: str
    labels: ClassLike | Sequence[ClassLike] | None
    steps: int | Sequence[int] | None
    rate: float | Sequence[float] | None
    prior: float | Sequence[float] | None
    restarts: int
    seed: int
    encoding: str
    strict: bool


@dataclass(frozen=True)
class Generated:
    """A picture that was made."""

    sample: int
    picture: Picture
    latent: Latent | None = field(default=None, repr=False, compare=False)
    """Its code, float32 [latent], if it was asked for."""
    label: int | None = None
    """Its class; None where the generator has none."""
    expression: int = 0
    """The place of the expression that made it."""
    frame: int = 0
    """Its place on a path."""


class Generations(list[Generated]):
    """Pictures that were made, in order, with the `manifest`."""

    def __init__(self, pictures: Iterable[Generated], manifest: Manifest) -> None:
        super().__init__(pictures)
        self.manifest = manifest


@dataclass(frozen=True)
class Inversion:
    """The code that was found for a picture; `error` is the mean square of pixels in [0, 1], `psnr` in dB."""

    sample: int
    latent: Latent = field(repr=False, compare=False)
    picture: Picture
    error: float
    first_error: float
    psnr: float
    restart: int
    step: int


class Inversions(list[Inversion]):
    """Codes that were found, in order, with the `manifest`."""

    def __init__(self, inversions: Iterable[Inversion], manifest: Manifest) -> None:
        super().__init__(inversions)
        self.manifest = manifest


@dataclass(frozen=True)
class Realness:
    """How real a picture looks to a discriminator: its logit, and the logistic function of that."""

    logit: float
    probability: float


class Scores(list[Realness]):
    """How real pictures look, in order, with the `manifest`."""

    def __init__(self, scores: Iterable[Realness], manifest: Manifest) -> None:
        super().__init__(scores)
        self.manifest = manifest


def generate_request(
    *,
    model: str = DEFAULT_GENERATOR,
    seeds: int | Iterable[int] | None = None,
    latents: Any = None,
    expressions: str | Sequence[str] | None = None,
    codes: Mapping[str, Any] | None = None,
    labels: ClassLike | Sequence[ClassLike] | None = None,
    truncation: float = 0.0,
    encoding: str = "png",
    strict: bool = True,
    return_latents: bool = False,
) -> generate_pb2.GenerateRequest:
    """The request of `Client.generate`."""
    if seeds is not None:
        seeds = [seeds] if isinstance(seeds, int) else seeds
    return generate_pb2.GenerateRequest(
        model=model,
        seeds=[parameter.uint("seeds", seed, 64) for seed in seeds or ()],
        latents=None if latents is None else _tensor("latents", latents, 2),
        codes=[_code(name, code) for name, code in (codes or {}).items()],
        expressions=[expressions] if isinstance(expressions, str) else expressions,
        labels=class_refs("labels", labels),
        truncation=parameter.real("truncation", truncation),
        encoding=_encoding(encoding),
        determinism=determinism(strict),
        return_latents=return_latents,
    )


def invert_request(
    images: ImagesLike,
    *,
    model: str = DEFAULT_GENERATOR,
    labels: ClassLike | Sequence[ClassLike] | None = None,
    steps: int | Sequence[int] | None = None,
    rate: float | Sequence[float] | None = None,
    prior: float | Sequence[float] | None = None,
    restarts: int = 0,
    seed: int = 0,
    encoding: str = "png",
    strict: bool = True,
) -> generate_pb2.InvertRequest:
    """The request of `Client.invert`."""
    return generate_pb2.InvertRequest(
        model=model,
        images=to_images("images", images),
        labels=class_refs("labels", labels),
        steps=[parameter.uint("steps", value) for value in _values(steps)],
        rate=[parameter.real("rate", value) for value in _values(rate)],
        prior=[parameter.real("prior", value) for value in _values(prior)],
        restarts=parameter.uint("restarts", restarts),
        seed=parameter.uint("seed", seed, 64),
        encoding=_encoding(encoding),
        determinism=determinism(strict),
    )


def score_request(
    images: ImagesLike,
    *,
    model: str = DEFAULT_GENERATOR,
    labels: ClassLike | Sequence[ClassLike] | None = None,
    strict: bool = True,
) -> generate_pb2.ScoreRequest:
    """The request of `Client.score`."""
    return generate_pb2.ScoreRequest(
        model=model,
        images=to_images("images", images),
        labels=class_refs("labels", labels),
        determinism=determinism(strict),
    )


def generations(message: generate_pb2.GenerateResponse) -> Generations:
    """The answer of `Client.generate`."""
    return Generations(map(generated, message.pictures), manifest_of(message.manifest))


def generated(message: generate_pb2.Generated) -> Generated:
    """A picture of `Client.watch_generate`."""
    return Generated(
        sample=message.sample,
        picture=from_image(message.image),
        latent=from_tensor(message.latent).astype("f4", copy=False) if message.HasField("latent") else None,
        label=message.label.index if message.HasField("label") else None,
        expression=message.expression,
        frame=message.frame,
    )


def inversions(message: generate_pb2.InvertResponse) -> Inversions:
    """The answer of `Client.invert`."""
    found = (
        Inversion(
            sample=one.sample,
            latent=from_tensor(one.latent).astype("f4", copy=False),
            picture=from_image(one.image),
            error=one.error,
            first_error=one.first_error,
            psnr=one.psnr,
            restart=one.restart,
            step=one.step,
        )
        for one in message.inversions
    )
    return Inversions(found, manifest_of(message.manifest))


def scores(message: generate_pb2.ScoreResponse) -> Scores:
    """The answer of `Client.score`."""
    found = (Realness(one.logit, one.probability) for one in message.scores)
    return Scores(found, manifest_of(message.manifest))


def _values(values: Any) -> Sequence[Any]:
    if values is None:
        return ()
    return values if isinstance(values, Sequence) else [values]


def _encoding(name: str) -> image_pb2.Encoding.ValueType:
    return image_pb2.Encoding.ValueType(choice.number("encoding", name, image_pb2.Encoding.DESCRIPTOR))


def _code(name: str, code: Any) -> generate_pb2.Code:
    if isinstance(code, int):
        return generate_pb2.Code(name=name, seed=parameter.uint(f"codes[{name!r}]", code, 64))
    return generate_pb2.Code(name=name, latent=_tensor(f"codes[{name!r}]", code, 1))


def _tensor(field_name: str, values: Any, axes: int) -> image_pb2.Tensor:
    array = np.asarray(values, "<f4")
    if array.ndim != axes:
        raise invalid(field_name, f"numbers on {axes} axes", list(array.shape))
    return image_pb2.Tensor(data=array.tobytes(), dtype=image_pb2.DTYPE_FLOAT32, shape=array.shape)
