"""Calibration: the scores of clean pictures, against which a picture's own are held.

A detector flags a picture whose score fewer than r clean ones reach, r = floor(rate * (n + 1)) of n: were the
picture as clean as they, it would be flagged with a probability of at most `rate` (conformal prediction, Vovk
et al. 2005). Several detectors together are held to the same rate, not to its sum: see Calibration.joint.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, from_numpy

from iguana_server.errors import InvalidArgument, ModelRefused

DEFAULT_RATE = 0.05
HIGHEST_RATE = 0.5
_SLACK = 1e-9  # of rate * (n + 1) that should be a whole number, and of sums that should be equal


@dataclass(frozen=True)
class Calibration:
    """Of one model: the scores of the same n clean pictures by each detector, and what was fitted."""

    model: str
    model_sha256: str
    data: str  # in words
    rate: float  # false-positive rate, unless a caller asks for another
    scores: Mapping[str, NDArray[np.float32]]  # by detector: [n]
    states: Mapping[str, Mapping[str, Tensor]]  # by detector

    def __post_init__(self) -> None:
        lengths = {len(scores) for scores in self.scores.values()}
        if len(lengths) != 1 or set(self.scores) != set(self.states):
            raise ModelRefused(f"{self.model}: want scores of the same pictures by each detector")
        if not all(np.isfinite(scores).all() for scores in self.scores.values()):
            raise ModelRefused(f"{self.model}: want finite scores of clean pictures, got others")
        self.allowed(self.rate)

    @property
    def pictures(self) -> int:
        """How many clean pictures."""
        return len(next(iter(self.scores.values())))

    @property
    def least_rate(self) -> float:
        """The least rate that so many pictures can vouch for."""
        return 1 / (self.pictures + 1)

    def allowed(self, rate: float) -> int:
        """How many of n + 1 pictures, the new one among them, may be flagged: r. Raises InvalidArgument."""
        if not self.least_rate - _SLACK <= rate <= HIGHEST_RATE:
            want = f"want {self.least_rate:.3g} (of {self.pictures} clean pictures) to {HIGHEST_RATE:g}"
            raise InvalidArgument("false_positive_rate", f"{want}, got {rate:g}")
        return math.floor(rate * (self.pictures + 1) + _SLACK)

    @functools.cached_property
    def ordered(self) -> Mapping[str, NDArray[np.float32]]:
        """The scores by detector, ascending: [n]."""
        return {name: np.sort(scores) for name, scores in self.scores.items()}

    @functools.cached_property
    def ranks(self) -> Mapping[str, NDArray[np.int64]]:
        """By detector, how many of the clean pictures have a lower score than each: [n]."""
        return {name: np.searchsorted(self.ordered[name], scores) for name, scores in self.scores.items()}

    def threshold(self, name: str, rate: float) -> float:
        """The score above which a detector flags: the r-th largest clean one."""
        return float(self.ordered[name][-self.allowed(rate)])

    def p_value(self, name: str, score: float) -> float:
        """The share of pictures, this one among them, that are as suspicious as this one."""
        return float(1 + (self.scores[name] >= score).sum()) / (self.pictures + 1)

    def joint(self, scores: Mapping[str, float]) -> float:
        """The p-value of several detectors' scores together.

        A picture's suspicion is Fisher's, minus the sum of the logs of its p-values by each detector among all
        n + 1 pictures. Units do not matter, and neither does how far the detectors agree: the new picture is
        ranked like the clean ones, so the rate holds exactly. (The largest suspicion of any detector in place
        of the sum is weaker where several see something, and has ties where pictures are few.)
        """
        own, clean = 0.0, np.zeros(self.pictures)
        logs = np.log(
            (self.pictures + 1) / np.arange(self.pictures + 1, 0, -1)
        )  # by the number of lower scores
        for name, score in scores.items():
            new = np.float32(score)
            own += logs[np.searchsorted(self.ordered[name], new)]
            clean += logs[self.ranks[name] + (new < self.scores[name])]
        return float(1 + (clean >= own - _SLACK).sum()) / (self.pictures + 1)

    def write(self, path: Path) -> None:
        """Write one safetensors file."""
        tensors = {f"scores.{name}": from_numpy(scores) for name, scores in self.scores.items()}
        for name, state in self.states.items():
            tensors |= {f"state.{name}.{key}": tensor.contiguous() for key, tensor in state.items()}
        said = {
            "model": self.model,
            "model_sha256": self.model_sha256,
            "data": self.data,
            "rate": self.rate,
            "detectors": list(self.scores),
        }
        path.write_bytes(save(tensors, {"calibration": json.dumps(said, sort_keys=True)}))


def read(path: Path) -> Calibration:
    """Read what `write` wrote. Raises ModelRefused where it is something else."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            said = json.loads((file.metadata() or {})["calibration"])
        names: Sequence[str] = said["detectors"]
        return Calibration(
            model=said["model"],
            model_sha256=said["model_sha256"],
            data=said["data"],
            rate=said["rate"],
            scores={name: tensors[f"scores.{name}"].numpy() for name in names},
            states={name: _under(f"state.{name}.", tensors) for name in names},
        )
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ModelRefused(f"{path.name}: want a file of iguana-server calibrate, got {error!r}") from error


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
