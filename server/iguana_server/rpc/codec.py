"""The codec of what concerns classifiers: messages to jobs, answers to messages; refusals are here or below.

Whatever costs more than a look is done in the intake's threads. The pixels or the classes of one picture cost less
than the way to a thread and back.
"""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from iguana.v1 import attack_pb2, classify_pb2, detect_pb2, image_pb2, manifest_pb2, verdict_pb2
from iguana_server.attacks.decision import Decision
from iguana_server.attacks.script import Act
from iguana_server.detectors.net import SafetyNet, Screen, Verdict
from iguana_server.detectors.panel import Panel
from iguana_server.engine.answer import Answer, Forged, Looked
from iguana_server.engine.job import AttackJob, ClassifyJob, Plan
from iguana_server.engine.remote import Remote
from iguana_server.errors import InternalError, InvalidArgument, NotFound
from iguana_server.models.base import Model
from iguana_server.rpc import classification, guard
from iguana_server.rpc.bounds import MAX_EVERY_STEPS
from iguana_server.rpc.diagnosis import DRAWS, QUERIES
from iguana_server.rpc.draft import Draft, to_draft, top_k
from iguana_server.rpc.evade import Evading, to_evading
from iguana_server.rpc.faults import Faults
from iguana_server.rpc.goal import Classes
from iguana_server.rpc.image import is_on_grid, to_pixels
from iguana_server.rpc.intake import Intake, named, sound
from iguana_server.rpc.manifest import manifest, versions
from iguana_server.rpc.memory import Memory
from iguana_server.rpc.method import images_of
from iguana_server.rpc.origin import Origin
from iguana_server.rpc.remote import RemoteModel, check_start, digested, out_of_record, to_model, to_query
from iguana_server.rpc.result import Delivery, from_forged
from iguana_server.rpc.words import STRICT

_LITTLE = 2**18  # numbers of a picture that is read at once: 0.2 ms
_WAITING_SHARE = 4  # of the images' memory: what attacks may hold that wait for their callers
_COLUMN_BYTES = 8  # of a number of a parameter


@dataclass(frozen=True)
class ClassifyOrder:
    """A job, and how its answer is to look. With a screen, each image is followed by its views."""

    job: ClassifyJob
    model: Model
    top_k: int
    logits: bool
    screen: Screen | None

    @property
    def looks(self) -> int:
        """At the model, for each image."""
        return 1 if self.screen is None else 1 + self.screen.panel.looks


@dataclass(frozen=True)
class AttackOrder:
    """Images, the attacks that follow one another on those of them that hold, and how the answer is to look."""

    images: torch.Tensor  # [n, C, H, W]
    acts: Sequence[Callable[[Sequence[int]], AttackJob]]
    model: Model | RemoteModel
    delivery: Delivery
    manifest: attack_pb2.AttackManifest
    strict: bool
    screen: Screen | None  # the detectors that it is led past


@dataclass(frozen=True)
class RemoteOrder:
    """An attack on a model that only the caller sees, and what the caller has recorded of it."""

    attack: AttackOrder
    remote: Remote
    labels: bool  # are enough
    recorded: int  # answers
    digest: bytes  # of the pictures that these are of
    queries: int  # at once
    answers: int  # at once

    @property
    def classes(self) -> int:
        """Of the model."""
        return len(self.attack.model.spec.classes)


class Codec:
    """Knows the models and the limits, and nothing of any request.

    Every `to_` reads a message on behalf of an origin, and raises InvalidArgument with all faults, or NotFound;
    `path` comes before the fields that it names. Every `from_` writes an answer, and raises InternalError where
    it would not be what was judged.
    """

    def __init__(
        self, models: Mapping[str, Model], intake: Intake, *, nets: Mapping[str, SafetyNet] | None = None
    ) -> None:
        """Take the loaded models, and their safety nets, by name."""
        self.models, self.limits, self.nets = models, intake.limits, nets or {}
        self._classes = {name: Classes(name, model.spec.classes) for name, model in models.items()}
        self._intake = intake
        self._waiting = Memory(intake.limits.max_image_memory // _WAITING_SHARE)

    async def to_classify(
        self, request: classify_pb2.ClassifyRequest, origin: Origin, path: str = ""
    ) -> ClassifyOrder:
        """Read a batch to be looked at."""
        guarded = request.HasField("guard")
        return await self._to_looked(request, origin, path, guarded=guarded, logits=request.logits)

    async def to_detect(
        self, request: detect_pb2.DetectRequest, origin: Origin, path: str = ""
    ) -> ClassifyOrder:
        """Read a batch to be judged."""
        return await self._to_looked(request, origin, path, guarded=True, logits=False)

    async def _to_looked(
        self,
        request: classify_pb2.ClassifyRequest | detect_pb2.DetectRequest,
        origin: Origin,
        path: str,
        *,
        guarded: bool,
        logits: bool,
    ) -> ClassifyOrder:
        faults = Faults(path)
        model = named("model", "a name", request.model, self.models, faults)
        self._intake.check_count(request.images, faults)
        strict = STRICT.meanings[STRICT.read(faults, "determinism", request.determinism)]
        k = top_k(request.top_k, faults)
        screen: Screen | None = None
        if guarded:
            name = model.spec.name
            screen = guard.to_screen(request.guard, self.nets.get(name), name, faults)
        panel = None if screen is None else screen.panel
        self._check_cost(len(request.images) * (1 + panel.looks if panel else 1), model, faults)
        one = classification.largest(model.spec.classes, k, with_logits=logits)
        self._intake.check_reply(len(request.images), one + (guard.largest(screen) if screen else 0), faults)
        images = await self._pixels(request.images, "images", model, faults, panel)
        faults.check()
        return ClassifyOrder(_look(images, model, origin, panel, strict=strict), model, k, logits, screen)

    async def from_looked(
        self, order: ClassifyOrder, looked: Sequence[Answer]
    ) -> classify_pb2.ClassifyResponse:
        """Write the answer of a batch; what its guard flags is refused."""
        if order.screen is not None:
            judged = await self._judged(order, looked)
            return await self._intake.apart(partial(_from_guarded, order, judged, self._manifest(order)))
        write = partial(_from_looked, order, _looks(looked), self._manifest(order))
        return write() if len(looked) == 1 else await self._intake.apart(write)

    async def from_detected(
        self, order: ClassifyOrder, looked: Sequence[Answer]
    ) -> detect_pb2.DetectResponse:
        """Write the answer of a batch that was judged."""
        judged = await self._judged(order, looked)
        return await self._intake.apart(partial(_from_detected, order, judged, self._manifest(order)))

    async def to_judged(
        self, order: AttackOrder, images: Sequence[torch.Tensor], origin: Origin
    ) -> ClassifyOrder:
        """Show the very pixels, [C, H, W] each, to the detectors that an attack evades."""
        model, screen = order.model, order.screen
        assert screen is not None and isinstance(model, Model)  # noqa: S101, PT018 - the caller sees to it
        panel = screen.panel
        looks = 1 + panel.looks
        pixels = self._intake.memory.images(len(images) * looks, model.spec.shape, model.memory_format)

        def read(i: int) -> None:
            _set(pixels, i * looks, images[i], panel)

        for done in await self._intake.each(partial(read, i) for i in range(len(images))):
            sound(done)
        job = _look(pixels, model, origin, panel, strict=order.strict)
        return ClassifyOrder(job, model, 0, False, screen)

    async def from_judged(self, order: ClassifyOrder, looked: Sequence[Answer]) -> list[verdict_pb2.Verdict]:
        """Write the verdicts alone."""
        return [guard.from_verdict(verdict) for _, verdict in await self._judged(order, looked)]

    async def _judged(self, order: ClassifyOrder, looked: Sequence[Answer]) -> list[tuple[Looked, Verdict]]:
        """What the model said of each image, and the verdict on it."""
        answers, looks, images = _looks(looked), order.looks, order.job.images
        assert order.screen is not None  # noqa: S101 - the callers see to it
        _check_finite(answers, looks)
        judge = partial(guard.judge, order.screen)
        verdicts = await self._intake.each(
            partial(judge, images[i], answers[i : i + looks]) for i in range(0, len(answers), looks)
        )
        return list(zip(answers[::looks], map(sound, verdicts), strict=True))

    def _manifest(self, order: ClassifyOrder) -> manifest_pb2.Manifest:
        said = manifest(order.model, strict=order.job.strict)
        if order.screen is not None:
            said.calibration_sha256 = self.nets[order.model.spec.name].sha256
        return said

    async def to_attack(
        self,
        request: attack_pb2.AttackRequest,
        origin: Origin,
        path: str = "",
        *,
        report_every: int = 0,
        whole: bool = True,
    ) -> AttackOrder:
        """Read a batch to be forged; whole: the answer is one message."""
        faults = Faults(path)
        model = named("model", "a name", request.model, self.models, faults)
        classes = self._classes[model.spec.name]
        return await self._to_forged(
            request, model, classes, origin, faults, report_every=report_every, whole=whole
        )

    async def _to_forged(
        self,
        request: attack_pb2.AttackRequest,
        model: Model | RemoteModel,
        classes: Classes,
        origin: Origin,
        faults: Faults,
        *,
        report_every: int = 0,
        whole: bool,
    ) -> AttackOrder:
        arrived = time.monotonic()
        self._intake.check_count(request.images, faults)
        draft = await self._intake.apart(partial(to_draft, request, model, classes, self.limits, faults))
        net = self.nets.get(model.spec.name)
        evading = await self._intake.apart(partial(to_evading, request, net, model.spec.name, faults))
        if draft is not None:
            looks = draft.method.looks(len(request.images))
            looks += request.diagnose * (DRAWS + QUERIES) * len(request.images)
            self._check_cost(looks * (1 if evading is None else evading.watch.looks), model, faults)
        victim = self._victim(request.victim, model, faults)
        if whole and draft is not None:
            self._intake.check_reply(len(request.images), _largest(draft, model, victim, evading), faults)
        clean = await self._pixels(request.images, "images", model, faults)
        if draft is not None and draft.delivery.on_grid and not faults:
            await self._intake.apart(partial(_check_grid, request.images, clean, faults))
        columns: dict[str, torch.Tensor] = {}
        for name, images in images_of(request).items():
            if len(images) not in (0, 1, len(clean)):
                continue  # the draft has noted it
            field = f"{request.WhichOneof('method')}.{name}"
            columns[name] = await self._pixels(images, field, model, faults) if images else clean
        faults.check()
        assert draft is not None  # noqa: S101 - it is a fault to name no method
        shared = draft.columns | {name: column.expand_as(clean) for name, column in columns.items()}
        if evading is not None and net is not None:
            shared |= evading.columns
            draft.manifest.evade.CopyFrom(evading.used)
            draft.manifest.run.calibration_sha256 = net.sha256

        def job(act: Act, samples: Sequence[int]) -> AttackJob:
            plan = Plan(
                attack=act.attack,
                columns=shared | act.columns,
                loss_name=act.loss_name,
                on_grid=draft.delivery.on_grid,
                restarts=act.tries,
                watch=None if evading is None else evading.watch,
                time_limit_s=_left(request.time_limit_s, arrived),
                report_every=report_every,
            )
            return AttackJob(
                clean,
                plan,
                method=origin.method,
                model=model.spec.name,
                caller=origin.caller,
                strict=draft.strict,
                deadline=origin.deadline,
                span=origin.span,
                samples=samples,
            )

        acts = [partial(job, act) for act in draft.acts]
        screen = None if evading is None else evading.screen
        return AttackOrder(clean, acts, model, draft.delivery, draft.manifest, draft.strict, screen)

    async def to_watched(self, request: attack_pb2.WatchAttackRequest, origin: Origin) -> AttackOrder:
        """Read a batch to be forged and watched."""
        if request.every_steps > MAX_EVERY_STEPS:
            raise InvalidArgument("every_steps", f"want 1..{MAX_EVERY_STEPS}, got {request.every_steps}")
        every = request.every_steps or 1
        return await self.to_attack(request.request, origin, "request.", report_every=every, whole=False)

    async def to_remote(self, start: attack_pb2.RemoteStart, origin: Origin) -> RemoteOrder:
        """Read an attack on a model that only the caller sees."""
        faults = Faults("start.")
        model = to_model(start.model, self.limits, faults)
        check_start(start, faults)
        faults.check()
        classes = await self._intake.apart(partial(Classes, model.spec.name, model.spec.classes))
        inner = Faults("start.request.")
        order = await self._to_forged(start.request, model, classes, origin, inner, whole=False)
        self._intake.check_reply(1, order.delivery.largest(model.spec), inner)
        order.manifest.run.CopyFrom(manifest_pb2.Manifest(versions=versions()))
        (act,) = order.acts
        job = act(range(len(order.images)))
        kind = job.plan.attack
        shapes = [column.shape for column in kind.columns().values()]
        self._waiting.hold(model.room(job.size, shapes.count("image"), shapes.count("logits")), job)
        lay_out = partial(Remote, job, len(classes.names), model.memory_format)
        remote = await self._intake.apart(lay_out)
        if start.recorded > remote.looks:
            raise out_of_record(remote.looks, start.recorded)
        return RemoteOrder(
            attack=order,
            remote=remote,
            labels=issubclass(kind, Decision),
            recorded=start.recorded,
            digest=start.digest,
            queries=model.queries(self.limits),
            answers=model.answers(self.limits),
        )

    async def ask(self, order: RemoteOrder) -> tuple[list[int], torch.Tensor]:
        """Return what a remote attack asks for next: samples, and pictures [m, C, H, W]."""
        return await self._intake.apart(order.remote.ask)

    async def tell(self, order: RemoteOrder, scores: torch.Tensor) -> Sequence[Forged]:
        """Tell a remote attack the scores [m, K] of these; return the answers of the samples that are done."""
        return await self._intake.apart(partial(order.remote.tell, scores))

    async def to_query(
        self, first: int, points: torch.Tensor, samples: Sequence[int]
    ) -> attack_pb2.RemoteQuery:
        """Write a query; see remote.to_query."""
        return await self._intake.apart(partial(to_query, first, points, samples))

    async def to_digest(self, digest: bytes, points: torch.Tensor) -> bytes:
        """Go on with a digest; see remote.digested."""
        return await self._intake.apart(partial(digested, digest, points))

    async def from_forged(self, order: AttackOrder, forged: Forged) -> attack_pb2.AttackResult:
        """Write the result of a sample."""
        clean = order.images[forged.sample]
        return await self._intake.apart(
            partial(from_forged, forged, clean, order.model.spec, order.delivery, order.manifest.method)
        )

    async def from_attack(self, order: AttackOrder, forged: Sequence[Forged]) -> attack_pb2.AttackResponse:
        """Write the answer of a batch."""
        spec, method = order.model.spec, order.manifest.method
        results = await self._intake.each(
            partial(from_forged, answer, order.images[answer.sample], spec, order.delivery, method)
            for answer in forged
        )
        written = [sound(result) for result in results]
        return attack_pb2.AttackResponse(results=written, manifest=order.manifest)

    def _victim(self, name: str, model: Model | RemoteModel, faults: Faults) -> Model | None:
        """Return the model that is only shown what was made for another, if one is named."""
        if not name:
            return None
        if name not in self.models:
            raise NotFound("victim", name, difflib.get_close_matches(name, self.models))
        victim = self.models[name]
        if victim.spec.classes != model.spec.classes:
            faults.add("victim", f"a model with the classes of {model.spec.name}", name)
        return victim

    def _check_cost(self, steps: int, model: Model | RemoteModel, faults: Faults) -> None:
        """Refuse work that could never wait; `steps` are of all rows together."""
        self._intake.check_cost(steps * math.prod(model.spec.shape), faults)

    async def _pixels(
        self,
        images: Sequence[image_pb2.Image],
        field: str,
        model: Model | RemoteModel,
        faults: Faults,
        panel: Panel | None = None,
    ) -> torch.Tensor:
        """Return the pixels [n, C, H, W] of images, and note those that are none.

        With a panel of V views each image is followed by its own: [n (1 + V), C, H, W].
        """
        looks = 1 + panel.looks if panel else 1
        pixels = self._intake.memory.images(len(images) * looks, model.spec.shape, model.memory_format)
        spend = self._intake.purse(f"{faults.path}{field}")

        def read(i: int) -> None:
            path = f"{faults.path}{field}[{i}]"
            _set(pixels, i * looks, to_pixels(images[i], path, model.spec, self.limits, spend), panel)

        if len(images) == looks == 1 and images[0].HasField("tensor") and pixels.numel() <= _LITTLE:
            try:
                read(0)
            except InvalidArgument as refusal:
                faults.extend(refusal)
            return pixels
        await self._intake.read_each(images, read, faults)
        return pixels


def _set(pixels: torch.Tensor, at: int, image: torch.Tensor, panel: Panel | None) -> None:
    """Lay an image [C, H, W] down in its place, and its views behind it."""
    pixels[at] = image
    if panel is not None:
        pixels[at + 1 : at + 1 + panel.looks] = panel.views(pixels[at : at + 1])[0]


def _look(
    images: torch.Tensor, model: Model, origin: Origin, panel: Panel | None, *, strict: bool
) -> ClassifyJob:
    """A look at each image, and at what else lies there for a panel."""
    return ClassifyJob(
        images,
        method=origin.method,
        model=model.spec.name,
        caller=origin.caller,
        strict=strict,
        deadline=origin.deadline,
        span=origin.span,
        features=panel is not None and panel.needs_features,
    )


def _looks(answers: Sequence[Answer]) -> list[Looked]:
    return [answer for answer in answers if isinstance(answer, Looked)]


def _check_finite(looked: Sequence[Looked], looks: int = 1) -> None:
    """Raise InternalError where the model said what is no number."""
    for i, answer in enumerate(looked):
        if not np.isfinite(answer.logits.numpy()).all():
            raise InternalError(f"images[{i // looks}]: want finite logits, got NaN or infinity")


def _from_looked(
    order: ClassifyOrder, looked: Sequence[Looked], said: manifest_pb2.Manifest
) -> classify_pb2.ClassifyResponse:
    _check_finite(looked)
    return classify_pb2.ClassifyResponse(
        classifications=(_classified(order, answer) for answer in looked), manifest=said
    )


def _classified(order: ClassifyOrder, answer: Looked) -> classify_pb2.Classification:
    classes = order.model.spec.classes
    return classification.from_logits(answer.logits, classes, order.top_k, with_logits=order.logits)


def _from_detected(
    order: ClassifyOrder, judged: Sequence[tuple[Looked, Verdict]], said: manifest_pb2.Manifest
) -> detect_pb2.DetectResponse:
    return detect_pb2.DetectResponse(
        detections=(
            detect_pb2.Detection(verdict=guard.from_verdict(verdict), classification=_classified(order, one))
            for one, verdict in judged
        ),
        manifest=said,
    )


def _from_guarded(
    order: ClassifyOrder, judged: Sequence[tuple[Looked, Verdict]], said: manifest_pb2.Manifest
) -> classify_pb2.ClassifyResponse:
    return classify_pb2.ClassifyResponse(
        classifications=(_guarded(order, one, verdict) for one, verdict in judged), manifest=said
    )


def _guarded(order: ClassifyOrder, answer: Looked, verdict: Verdict) -> classify_pb2.Classification:
    """The classification, or the refusal of a picture that is flagged."""
    if not verdict.flagged:
        return _classified(order, answer)
    said = classify_pb2.Refusal(reason=guard.reason(verdict), verdict=guard.from_verdict(verdict))
    return classify_pb2.Classification(refusal=said)


def _check_grid(images: Sequence[image_pb2.Image], clean: torch.Tensor, faults: Faults) -> None:
    """Note clean images off the 8-bit grid: no ball around them holds a grid point for certain."""
    for i, image in enumerate(images):
        if image.tensor.dtype == image_pb2.DTYPE_FLOAT32 and not is_on_grid(clean[i]):
            want = f"OUTPUT_GRID_FLOAT, as images[{i}] lies off the 8-bit grid"
            faults.add("output_grid", want, "OUTPUT_GRID_UINT8")
            return


def _largest(draft: Draft, model: Model | RemoteModel, victim: Model | None, evading: Evading | None) -> int:
    """The most bytes that one sample adds to the answer."""
    top = draft.delivery.top_k
    seen = 0 if victim is None else 2 * classification.largest(victim.spec.classes, top)
    if evading is not None:
        seen += 2 * guard.largest(evading.screen)
    return draft.delivery.largest(model.spec) + _COLUMN_BYTES * len(draft.manifest.parameters) + seen


def _left(limit_s: float, arrived: float) -> float | None:
    """What is left of a time limit that counts from the arrival; None where there is none."""
    return max(0.0, limit_s - (time.monotonic() - arrived)) if limit_s else None
