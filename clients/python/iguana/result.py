"""Answers, as frozen values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import overload

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from iguana.errors import InternalError
from iguana.evade import Evade
from iguana.image import Picture, Pixels


class Outcome(StrEnum):
    """Whether a sample's goal was reached."""

    FOOLED = "fooled"
    """The delivered picture reaches the goal."""
    HELD = "held"
    """The model held; the nearest try is delivered."""
    ALREADY = "already"
    """The clean picture reaches the goal; nothing was changed. Not a success of the attack."""
    FAILED = "failed"
    """This sample alone could not be computed; see `AttackResult.reason`."""


class Ended(StrEnum):
    """Why an attack on a sample stopped."""

    STOP = "stop"
    STEPS = "steps"
    TIME_LIMIT = "time_limit"
    ALREADY = "already"
    NON_FINITE = "non_finite"


@dataclass(frozen=True)
class ClassScore:
    """One class and its probability in [0, 1]."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Mark:
    """What one detector says of a picture: `flagged` if its `score` is above the `threshold`."""

    detector: str
    score: float
    threshold: float
    flagged: bool
    p_value: float
    """The share of pictures, clean ones and this one, with as high a score."""


@dataclass(frozen=True)
class Verdict:
    """What the chosen detectors say of a picture together, at a false-positive rate that holds for all at once."""

    flagged: bool
    p_value: float
    false_positive_rate: float
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Refusal:
    """Why a guard refused a picture."""

    reason: str
    verdict: Verdict


@dataclass(frozen=True)
class Classification:
    """What a model sees in one picture."""

    top: tuple[ClassScore, ...]
    """The likeliest classes, best first; none if the guard refused the picture."""
    logits: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """The raw outputs [classes], if they were asked for."""
    refusal: Refusal | None = None
    """Why the guard refused the picture, if it did."""


@dataclass(frozen=True)
class Detection:
    """What is said of one picture: the detectors' verdict, and what the model sees in it all the same."""

    verdict: Verdict
    classification: Classification


@dataclass(frozen=True)
class Manifest:
    """What made an answer: enough to make it again. `bucket` is the rows of a pass if `strict`, else 0."""

    model: str
    model_sha256: str
    strict: bool
    bucket: int
    device: str
    versions: Mapping[str, str]
    calibration_sha256: str = ""
    """Of the detectors' calibration, where they had a say."""


@dataclass(frozen=True)
class AttackManifest:
    """What made the answer of an attack: `parameters` as used, one value a sample; the rest as asked.

    `stop` is "success", "never" or "margin"; `loss` is "" if the attack climbs none; `labels` are the classes
    to leave or, where `targeted`, to reach, one a sample, -1 for the prediction of the clean image.
    """

    run: Manifest
    method: str
    parameters: Mapping[str, tuple[float, ...]]
    seed: int
    loss: str
    stop: str
    keep: str
    grid: str
    stop_margin: float
    labels: tuple[int, ...]
    targeted: tuple[bool, ...]
    evade: Evade | None = None
    """As used, if it was set: the detectors by name, one weight a sample."""


class Classifications(list[Classification]):
    """A list of one `Classification` an image, in order, with the `manifest` that made it."""

    def __init__(self, classifications: list[Classification], manifest: Manifest) -> None:
        super().__init__(classifications)
        self.manifest = manifest


class Detections(list[Detection]):
    """A list of one `Detection` an image, in order, with the `manifest` that made it."""

    def __init__(self, detections: list[Detection], manifest: Manifest) -> None:
        super().__init__(detections)
        self.manifest = manifest


@dataclass(frozen=True)
class Norms:
    """The size of delivered - clean over all pixels and channels, in [0, 1] pixel units; l0 is a count."""

    linf: float
    l2: float
    l1: float
    l0: int


@dataclass(frozen=True)
class Diagnosis:
    """Whether a model that held is robust, or hides its gradients."""

    zero_gradients: float
    """The share of gradients that were zero in every pixel."""
    rising: float
    """The share of judged pictures with more loss than the one before."""
    loss_gain: float
    """The loss at the delivered picture less that at the first."""
    suspicions: tuple[str, ...]
    """"zero_gradients", "loss_does_not_rise", "noise_wins", "black_box_wins"; none if all is well."""


@dataclass(frozen=True)
class Transfer:
    """What a victim sees in a picture that was made to fool another model."""

    before: Classification
    after: Classification
    fooled: bool
    """Whether the goal is reached with the victim."""


@dataclass(frozen=True)
class Evasion:
    """What the detectors say that an attack was to be led past."""

    before: Verdict
    """Of the clean picture."""
    after: Verdict
    """Of the delivered one."""


@dataclass(frozen=True)
class AttackResult:
    """What became of one sample."""

    sample: int
    """The image's place in the request, from 0."""
    outcome: Outcome
    ended: Ended
    picture: Picture | None
    """The forged picture; the clean one if `outcome` is ALREADY; None if it is FAILED."""
    clean: Picture | None
    """The picture as the model took it in, if `return_clean` was set."""
    before: Classification
    """What the model sees in the clean picture."""
    after: Classification
    """What it sees in exactly the delivered pixels."""
    norms: Norms
    margin: float
    """By how many logits the goal is reached (above 0) or missed; with `evade`, or by how many nats if that is less."""
    loss: float
    """The loss at the delivered picture, as climbed."""
    step: int
    """The move after which the delivered iterate stood, from 0."""
    restart: int
    """The restart that found it, from 0."""
    forward: int
    """Looks at the model, over all restarts."""
    backward: int
    """Gradients taken, over all restarts."""
    zero_gradients: int
    """How many of them were zero everywhere: a sign of masked gradients."""
    attack: str
    """What made the delivered picture: the method, or one of those that it runs."""
    diagnosis: Diagnosis
    transfer: Transfer | None = None
    """What the victim sees, if one was named."""
    evasion: Evasion | None = None
    """What the detectors say, if `evade` was set."""
    reason: str = ""
    """Why it failed, if `outcome` is FAILED."""

    @property
    def fooled(self) -> bool:
        """Whether the attack succeeded."""
        return self.outcome is Outcome.FOOLED

    @property
    def image(self) -> Pixels:
        """The delivered pixels [H, W, C]. Raises `InternalError` with the reason if the sample failed."""
        return self._delivered().pixels

    @property
    def png(self) -> bytes:
        """The delivered PNG file, byte for byte; see `Picture.png`."""
        return self._delivered().png

    def pil(self) -> PIL.Image.Image:
        """The delivered picture as a PIL image; see `Picture.pil`."""
        return self._delivered().pil()

    def _delivered(self) -> Picture:
        if self.picture is None:
            raise InternalError(f"sample {self.sample} has no picture: {self.reason or self.outcome}")
        return self.picture


@dataclass(frozen=True)
class AttackAnswer:
    """One result an image, in the order of the request; also a sequence of them."""

    results: tuple[AttackResult, ...]
    manifest: AttackManifest

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[AttackResult]:
        return iter(self.results)

    @overload
    def __getitem__(self, index: int) -> AttackResult: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[AttackResult, ...]: ...
    def __getitem__(self, index: int | slice) -> AttackResult | tuple[AttackResult, ...]:
        return self.results[index]


@dataclass(frozen=True)
class Progress:
    """Where a sample stands: `step` of at most `steps` moves, `margin` and `fooled` of the best so far."""

    sample: int
    restart: int
    step: int
    steps: int
    loss: float
    margin: float
    fooled: bool


@dataclass(frozen=True)
class Summary:
    """The end of a watched attack: how many samples had which outcome."""

    fooled: int
    held: int
    already: int
    failed: int
    manifest: AttackManifest
