"""The codec of what concerns generators: messages to jobs, answers to messages. See codec.py."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from iguana.v1 import attack_pb2, generate_pb2, image_pb2, manifest_pb2
from iguana_server.engine.answer import Answer, Inverted, Mapped
from iguana_server.engine.synthesis import InvertJob, MapJob
from iguana_server.errors import InternalError
from iguana_server.generators import codes
from iguana_server.generators.base import Generator
from iguana_server.generators.inversion import Inversion
from iguana_server.rpc.bounds import DEFAULT_INVERT_RESTARTS
from iguana_server.rpc.faults import Faults, counts, listed
from iguana_server.rpc.goal import Classes
from iguana_server.rpc.image import from_bytes, largest, to_pixels
from iguana_server.rpc.intake import Intake, named, sound
from iguana_server.rpc.latent import Codes, from_latent, to_codes, to_labels
from iguana_server.rpc.manifest import manifest
from iguana_server.rpc.origin import Origin
from iguana_server.rpc.words import PNG, STRICT

_ROW_BYTES = 256  # numbers, label and frame of an answer for a row
STEPS, RATE, PRIOR = 200, 0.1, 0.001  # of an inversion


@dataclass(frozen=True)
class GenerateOrder:
    """A job, and how its answer is to look."""

    job: MapJob
    generator: Generator
    codes: Codes
    png: bool
    return_latents: bool
    manifest: manifest_pb2.Manifest


@dataclass(frozen=True)
class InvertOrder:
    """A job, and how its answer is to look."""

    job: InvertJob
    png: bool
    manifest: manifest_pb2.Manifest


@dataclass(frozen=True)
class ScoreOrder:
    """A job for a critic."""

    job: MapJob
    manifest: manifest_pb2.Manifest


class Generation:
    """Knows the generators; its methods are as those of Codec."""

    def __init__(self, generators: Mapping[str, Generator], intake: Intake) -> None:
        """Take the loaded generators by name."""
        self.generators, self.limits = generators, intake.limits
        self._intake = intake
        self._classes = {
            name: Classes(name, generator.spec.classes)
            for name, generator in generators.items()
            if generator.spec.classes
        }

    async def to_generate(
        self, request: generate_pb2.GenerateRequest, origin: Origin, path: str = "", *, whole: bool = True
    ) -> GenerateOrder:
        """Read a batch of codes; whole: the answer is one message."""
        faults = Faults(path)
        generator = named("generator", "a generator's name", request.model, self.generators, faults)
        spec = generator.spec
        png = PNG.meanings[PNG.read(faults, "encoding", request.encoding)]
        strict = STRICT.meanings[STRICT.read(faults, "determinism", request.determinism)]
        classes = self._classes.get(spec.name)
        read = partial(to_codes, request, spec, classes, self.limits, faults)
        made = await self._intake.apart(read)
        source = "seeds" if request.seeds else "expressions" if request.expressions else "latents"
        if whole:
            one = largest(spec.shape) + 4 * spec.latent * request.return_latents + _ROW_BYTES
            self._intake.check_reply(len(made.z), one, faults, source, "pictures")
        cost = spec.latent + math.prod(spec.shape)
        self._intake.check_cost(len(made.z) * cost, faults, source)
        job = MapJob((made.z, made.label), row_cost=cost, **origin.of_job(spec.name, strict=strict))
        self._intake.memory.hold(len(made.z) * math.prod(spec.shape), job)
        return GenerateOrder(
            job, generator, made, png, request.return_latents, manifest(generator, strict=strict)
        )

    async def from_generated(
        self, order: GenerateOrder, answers: Sequence[Answer]
    ) -> generate_pb2.GenerateResponse:
        """Write the answer of a batch."""
        write = (partial(_generated, order, answer) for answer in answers)
        if len(answers) == 1 and not order.png:
            return generate_pb2.GenerateResponse(pictures=[next(write)()], manifest=order.manifest)
        if not order.png:  # a copy each: not worth a thread each
            pictures = await self._intake.apart(lambda: [one() for one in write])
        else:
            pictures = [sound(one) for one in await self._intake.each(write)]
        return generate_pb2.GenerateResponse(pictures=pictures, manifest=order.manifest)

    async def from_one(self, order: GenerateOrder, answer: Mapped) -> generate_pb2.Generated:
        """Write one picture."""
        return await self._intake.apart(partial(_generated, order, answer))

    async def to_invert(
        self, request: generate_pb2.InvertRequest, origin: Origin, path: str = ""
    ) -> InvertOrder:
        """Read a batch of pictures whose codes are sought."""
        faults = Faults(path)
        generator = named("generator", "a generator's name", request.model, self.generators, faults)
        spec, n, limits = generator.spec, len(request.images), self.limits
        self._intake.check_count(request.images, faults)
        png = PNG.meanings[PNG.read(faults, "encoding", request.encoding)]
        strict = STRICT.meanings[STRICT.read(faults, "determinism", request.determinism)]
        restarts = request.restarts or min(DEFAULT_INVERT_RESTARTS, limits.max_restarts)
        if restarts > limits.max_restarts:
            faults.add("restarts", f"1..{limits.max_restarts}", str(request.restarts))
            restarts = 1
        default = min(STEPS, limits.max_steps)
        steps = _column(request.steps, "steps", n, 1, limits.max_steps, default, faults)
        rate = _column(request.rate, "rate", n, 0, 1, RATE, faults)
        prior = _column(request.prior, "prior", n, 0, 1, PRIOR, faults)
        label = to_labels(request.labels, n, spec, self._classes.get(spec.name), faults)
        cost = spec.latent + math.prod(spec.shape)
        self._intake.check_cost(3 * cost * restarts * int(steps.sum() + n), faults)
        one = largest(spec.shape) + 4 * spec.latent + _ROW_BYTES
        self._intake.check_reply(n, one, faults)
        target = await self._pixels(request.images, generator, faults, copies=2 * restarts)
        faults.check()

        def table() -> Inversion:
            seeds = [(request.seed + sample) % 2**64 for sample in range(n)]
            starts = [codes.from_seeds(seeds, spec.latent, restart=1 + i) for i in range(restarts)]
            columns = {"label": label, "target": target, "rate": rate, "prior": prior, "steps": steps.long()}
            return Inversion(
                z=torch.cat(starts), **{name: torch.cat([c] * restarts) for name, c in columns.items()}
            )

        made = await self._intake.apart(table)
        job = InvertJob(made, restarts, row_cost=cost, **origin.of_job(spec.name, strict=strict))
        return InvertOrder(job, png, manifest(generator, strict=strict))

    async def from_inverted(
        self, order: InvertOrder, answers: Sequence[Answer]
    ) -> generate_pb2.InvertResponse:
        """Write the answer of a batch. Raises InternalError where the generator gave no numbers."""
        made = await self._intake.each(partial(_inverted, order, answer) for answer in answers)
        return generate_pb2.InvertResponse(inversions=map(sound, made), manifest=order.manifest)

    async def to_score(
        self, request: generate_pb2.ScoreRequest, origin: Origin, path: str = ""
    ) -> ScoreOrder:
        """Read a batch of pictures for a critic."""
        faults = Faults(path)
        generator = named("generator", "a generator's name", request.model, self.generators, faults)
        spec, critic = generator.spec, generator.critic
        if critic is None:
            faults.add("model", "a generator that has a discriminator (ListModels tells)", spec.name)
            faults.check()
        assert critic is not None  # noqa: S101 - checked
        self._intake.check_count(request.images, faults)
        strict = STRICT.meanings[STRICT.read(faults, "determinism", request.determinism)]
        label = to_labels(request.labels, len(request.images), spec, self._classes.get(spec.name), faults)
        x = await self._pixels(request.images, generator, faults)
        faults.check()
        job = MapJob((x, label), row_cost=math.prod(spec.shape), **origin.of_job(critic.name, strict=strict))
        return ScoreOrder(job, manifest(generator, strict=strict))

    async def from_scored(self, order: ScoreOrder, answers: Sequence[Answer]) -> generate_pb2.ScoreResponse:
        """Write the answer of a batch. Raises InternalError where the critic gave no numbers."""
        logits = [float(answer.value) for answer in answers if isinstance(answer, Mapped)]
        for i, logit in enumerate(logits):
            if not math.isfinite(logit):
                raise InternalError(f"images[{i}]: want a finite logit, got NaN or infinity")
        scores = (
            generate_pb2.Realness(logit=logit, probability=torch.tensor(logit).sigmoid().item())
            for logit in logits
        )
        return generate_pb2.ScoreResponse(scores=scores, manifest=order.manifest)

    async def _pixels(
        self, images: Sequence[image_pb2.Image], generator: Generator, faults: Faults, *, copies: int = 0
    ) -> torch.Tensor:
        """Return the pixels [n, C, H, W] of images; `copies` of them will be held beside."""
        spec = generator.spec
        pixels = self._intake.memory.images(len(images), spec.shape, torch.contiguous_format)
        if copies:
            self._intake.memory.hold(4 * copies * pixels.numel(), pixels)
        spend = self._intake.purse(f"{faults.path}images")

        def read(i: int) -> None:
            pixels[i] = to_pixels(images[i], f"{faults.path}images[{i}]", spec, self.limits, spend)

        await self._intake.read_each(images, read, faults)
        return pixels


def _column(
    values: Sequence[float], field: str, n: int, low: float, high: float, default: float, faults: Faults
) -> torch.Tensor:
    """Read a number given not at all, once, or once a picture: [n] float32."""
    if len(values) not in (0, 1, n) or not all(low <= value <= high for value in values):  # NaN is not
        faults.add(field, f"{counts(n, 'value')} in [{low:g}, {high:g}]", listed(values))
        return torch.full((n,), float(default))
    return torch.tensor(list(values) or [default], dtype=torch.float32).expand(n).clone()


def _generated(order: GenerateOrder, answer: Answer) -> generate_pb2.Generated:
    assert isinstance(answer, Mapped)  # noqa: S101 - the job's kind
    i, made = answer.sample, order.codes
    expression, frame = made.origin[i]
    return generate_pb2.Generated(
        sample=i,
        image=from_bytes(answer.value, png=order.png),
        latent=from_latent(made.z[i]) if order.return_latents else None,
        label=_label(order.generator, int(made.label[i])),
        expression=expression,
        frame=frame,
    )


def _label(generator: Generator, index: int) -> attack_pb2.ClassRef | None:
    return attack_pb2.ClassRef(index=index) if generator.spec.classes else None


def _inverted(order: InvertOrder, answer: Answer) -> generate_pb2.Inversion:
    assert isinstance(answer, Inverted)  # noqa: S101 - the job's kind
    if not answer.finite:
        raise InternalError(f"images[{answer.sample}]: want finite pictures and gradients, got others")
    return generate_pb2.Inversion(
        sample=answer.sample,
        latent=from_latent(answer.z),
        image=from_bytes(answer.pixels, png=order.png),
        error=answer.error,
        first_error=answer.first_error,
        psnr=-10 * math.log10(answer.error) if answer.error else math.inf,
        restart=answer.restart,
        step=answer.step,
    )
