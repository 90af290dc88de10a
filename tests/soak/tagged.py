"""Requests whose answers can be told from all others without trusting the server.

Every picture is one of its own, and the test has the same weights: logits, clean pixels, the ball around them,
the seed and the epsilon of the manifest each say whose answer it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from iguana.v1 import attack_pb2, classify_pb2, image_pb2, manifest_pb2
from iguana_server.attacks.catalog import ATTACKS
from iguana_server.models.base import Model
from tests.soak.contract import CLASSES, MODEL, SIDE, file, opened, tensor
from tests.soak.scale import SEED

EXACT = 1e-4  # by which logits may differ from those computed here
PASS = 32  # pictures
Pixels = NDArray[np.uint8]  # [28, 28]


@dataclass(frozen=True)
class Sighting:
    """What the server says of a picture: logits [10], up to a constant."""

    owner: str
    pixels: Pixels
    logits: NDArray[np.float64]


class Item(Protocol):
    """One request with its tag."""

    @property
    def tag(self) -> int:
        """What it draws its pictures from."""

    def faults(self, response: Any) -> list[str]:
        """What shows that the response is another's."""

    def sightings(self, response: Any) -> list[Sighting]:
        """What the response says of which pictures."""


@dataclass(frozen=True)
class Classification:
    """A batch to be looked at."""

    tag: int

    @property
    def request(self) -> classify_pb2.ClassifyRequest:
        """The request; every third picture comes as a file."""
        images = [
            image_pb2.Image(encoded=file(one)) if (self.tag + i) % 3 == 0 else tensor(one)
            for i, one in enumerate(clean(self.tag))
        ]
        return classify_pb2.ClassifyRequest(
            model=MODEL, images=images, logits=True, top_k=1, determinism=_determinism(self.tag)
        )

    def faults(self, response: classify_pb2.ClassifyResponse) -> list[str]:
        """See Item."""
        n, want = len(response.classifications), len(clean(self.tag))
        return [] if n == want else [f"{self.tag}: want {want} classifications, got {n}"]

    def sightings(self, response: classify_pb2.ClassifyResponse) -> list[Sighting]:
        """See Item."""
        return [
            Sighting(f"{self.tag}[{i}]", one[:, :, 0], np.frombuffer(seen.logits.data, "<f4").astype(float))
            for i, (one, seen) in enumerate(zip(clean(self.tag), response.classifications, strict=False))
        ]


@dataclass(frozen=True)
class Forgery:
    """A batch to be forged."""

    tag: int

    @property
    def method(self) -> str:
        """The attack."""
        return list(ATTACKS)[self.tag % len(ATTACKS)]

    @property
    def epsilon(self) -> float:
        """The radius, unlike that of its neighbours: a float32."""
        return float(np.float32((1 + self.tag % 997) / (400 if ATTACKS[self.method].norm == "l2" else 4000)))

    @property
    def target(self) -> int | None:
        """The class to reach, or none: away from the clean prediction."""
        return self.tag % CLASSES if self.tag % 4 == 0 else None

    @property
    def request(self) -> attack_pb2.AttackRequest:
        """The request."""
        request = attack_pb2.AttackRequest(
            model=MODEL,
            images=map(tensor, clean(self.tag)),
            seed=self.tag,
            return_clean=True,
            top_k=CLASSES,
            determinism=_determinism(self.tag),
            stop_on=attack_pb2.STOP_ON_NEVER if self.tag % 5 == 0 else attack_pb2.STOP_ON_FIRST_SUCCESS,
            encoding=image_pb2.ENCODING_TENSOR if self.tag % 3 == 0 else image_pb2.ENCODING_PNG,
        )
        if self.target is not None:
            request.goals.add().targeted.target.index = self.target
        parameters = getattr(request, self.method)
        parameters.SetInParent()
        fields = parameters.DESCRIPTOR.fields_by_name
        if "epsilon" in fields:
            parameters.epsilon.append(self.epsilon)
        if "steps" in fields:
            parameters.steps.append(1 + self.tag % 6)
        if "queries" in fields:
            parameters.queries.append(3 + self.tag % 12)
        return request

    def faults(self, response: attack_pb2.AttackResponse) -> list[str]:
        """See Item."""
        pictures, told = clean(self.tag), response.manifest
        found = []
        if told.seed != self.tag or told.method != self.method:
            found.append(f"the manifest is of {told.method} with seed {told.seed}")
        radius = [list(used.values) for used in told.parameters if used.name == "epsilon"]
        if radius and radius != [[self.epsilon] * len(pictures)]:
            found.append(f"epsilon was {radius}")
        if [result.sample for result in response.results] != list(range(len(pictures))):
            found.append(f"{len(response.results)} results for {len(pictures)} pictures")
        for one, result in zip(pictures, response.results, strict=False):
            found += self._misfits(one[:, :, 0], result)
        return [f"{self.tag}: {fault}" for fault in found]

    def sightings(self, response: attack_pb2.AttackResponse) -> list[Sighting]:
        """See Item."""
        return [
            sighting
            for i, (one, result) in enumerate(zip(clean(self.tag), response.results, strict=False))
            for sighting in (
                Sighting(f"{self.tag}[{i}]", one[:, :, 0], _logits(result.before)),
                Sighting(f"{self.tag}[{i}] forged", opened(result.image), _logits(result.after)),
            )
        ]

    def _misfits(self, clean_one: Pixels, result: attack_pb2.AttackResult) -> Iterable[str]:
        if not np.array_equal(opened(result.clean), clean_one):
            yield "the clean picture is another's"
        change = (opened(result.image).astype(float) - clean_one) / 255
        norm = ATTACKS[self.method].norm
        size = np.abs(change).max() if norm == "linf" else float(np.sqrt((change**2).sum()))
        if norm in ("linf", "l2") and size > self.epsilon + 1e-6:
            yield f"the picture lies {size} from the clean one, in a ball of {self.epsilon}"
        if not np.isclose(result.norms.linf, np.abs(change).max(), atol=1e-6):
            yield f"the norm is another's: {result.norms.linf}"
        before, after = result.before.top[0].index, result.after.top[0].index
        reached = after == self.target if self.target is not None else after != before
        want = attack_pb2.OUTCOME_FOOLED if reached else attack_pb2.OUTCOME_HELD
        if before == self.target:
            want = attack_pb2.OUTCOME_ALREADY
        if result.outcome != want:
            yield f"the outcome is {result.outcome}, of {before} to {after}"


def clean(tag: int) -> Pixels:
    """The pictures of a tag, uint8 [1 to 3, 28, 28, 1]: noise between levels of its own."""
    draw = np.random.default_rng((SEED, tag))
    low, high = np.sort(draw.integers(0, 257, 2)) if tag % 2 else (0, 256)
    return draw.integers(low, max(high, low + 16), (1 + tag % 3, SIDE, SIDE, 1)).clip(0, 255).astype(np.uint8)


def strangers(model: Model, sightings: Sequence[Sighting]) -> tuple[list[str], float, float]:
    """Return the sightings that are not of their picture, the largest error, and the distance of the nearest two.

    Each is compared with the logits computed here, and clean pictures with those of all others too; the distance is in logits.
    """
    pictures = torch.from_numpy(np.stack([sighting.pixels for sighting in sightings])).unsqueeze(1)
    with torch.inference_mode():
        passes = [model(part.float() / 255) for part in torch.split(pictures, PASS)]
    truth = _centred(torch.cat(passes).double())
    said = _centred(torch.from_numpy(np.stack([sighting.logits for sighting in sightings])))
    errors = (said - truth).abs().amax(1)
    wrong = [
        f"{sightings[i].owner}: the logits are off by {errors[i]:.3g}"
        for i in (errors > EXACT).nonzero().flatten().tolist()
    ]
    first = {
        sighting.pixels.tobytes(): i for i, sighting in enumerate(sightings) if "forged" not in sighting.owner
    }
    rows = torch.tensor(list(first.values()))
    known, nearest = truth[rows], float("inf")
    for at in range(0, len(rows), 1000):
        far = torch.cdist(said[rows[at : at + 1000]], known)
        own = far[torch.arange(len(far)), torch.arange(at, at + len(far))].clone()
        far[torch.arange(len(far)), torch.arange(at, at + len(far))] = float("inf")
        nearest = min(nearest, float(far.min()))
        wrong += [
            f"{sightings[int(rows[at + i])].owner}: nearer to another's"
            for i in (far.amin(1) <= own).nonzero().flatten().tolist()
        ]
    return wrong, float(errors.max()), nearest


def _determinism(tag: int) -> manifest_pb2.Determinism.ValueType:
    return manifest_pb2.DETERMINISM_FAST if tag % 2 else manifest_pb2.DETERMINISM_STRICT


def _logits(seen: classify_pb2.Classification) -> NDArray[np.float64]:
    """Logits up to a constant, from the probabilities of all classes."""
    logits = np.full(CLASSES, np.nan)
    for score in seen.top:
        logits[score.index] = np.log(score.probability)
    return logits


def _centred(logits: torch.Tensor) -> torch.Tensor:
    return logits - logits.mean(1, keepdim=True)
