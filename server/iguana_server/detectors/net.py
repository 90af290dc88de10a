"""The safety net of a model: its detectors, held to its calibration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iguana_server.detectors import calibration
from iguana_server.detectors.calibration import Calibration
from iguana_server.detectors.catalog import available
from iguana_server.detectors.panel import Panel
from iguana_server.detectors.watch import Watch
from iguana_server.errors import InvalidArgument, ModelRefused
from iguana_server.models.base import Model

WEIGHTS = Path(__file__).parents[1] / "models" / "weights"


@dataclass(frozen=True, slots=True)
class Mark:
    """One detector's word on a picture; flagged where the score is above the threshold."""

    detector: str
    score: float
    threshold: float
    p_value: float

    @property
    def flagged(self) -> bool:
        """Whether it is too suspicious."""
        return self.score > self.threshold


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the chosen detectors say together, at a false-positive rate that holds for all of them at once."""

    marks: tuple[Mark, ...]
    p_value: float
    rate: float
    flagged: bool


@dataclass(frozen=True)
class Screen:
    """Chosen detectors of a model at a chosen false-positive rate."""

    panel: Panel
    calibration: Calibration
    rate: float

    def judge(self, scores: Mapping[str, float]) -> Verdict:
        """Hold the scores of one picture, by detector, to those of clean ones."""
        marks = tuple(
            Mark(
                name,
                score,
                self.calibration.threshold(name, self.rate),
                self.calibration.p_value(name, score),
            )
            for name, score in scores.items()
        )
        p_value = self.calibration.joint(scores)
        most = self.calibration.allowed(self.rate) / (self.calibration.pictures + 1)
        return Verdict(marks, p_value, self.rate, p_value <= most)


class SafetyNet:
    """The detectors that are calibrated for a model."""

    def __init__(self, model: Model, calibrated: Calibration, sha256: str) -> None:
        """Take a calibration, whose file has this sha256.

        Raises ModelRefused where it is another model's, or a detector is not known or does not fit.
        """
        spec = model.spec
        if (calibrated.model, calibrated.model_sha256) != (spec.name, model.sha256):
            raise ModelRefused(
                f"{spec.name}: want detectors calibrated for {spec.name} {model.sha256},"
                f" got {calibrated.model} {calibrated.model_sha256}; iguana-server calibrate makes them anew"
            )
        known = available()
        if unknown := sorted(set(calibrated.scores) - set(known)):
            raise ModelRefused(f"{spec.name}: want detectors of {', '.join(known)}, got {unknown}")
        for name in calibrated.scores:
            if lack := known[name].check(model):
                raise ModelRefused(f"{spec.name}: {name}: want {lack}, got none")
        self.calibration, self.sha256 = calibrated, sha256
        self._model = model
        self._watches: dict[tuple[str, ...], Watch] = {}
        self.detectors = {name: known[name](spec, calibrated.states[name]) for name in calibrated.scores}

    def screen(self, names: Sequence[str], rate: float) -> Screen:
        """Choose detectors by name (none: all) and a rate (0: the calibration's).

        Raises InvalidArgument, the field being "detectors[i]" or "false_positive_rate".
        """
        for i, name in enumerate(names):
            if name not in self.detectors:
                close = difflib.get_close_matches(name[:64], self.detectors)
                hint = f" (close: {', '.join(close)})" if close else ""
                want = f"want one of {', '.join(self.detectors)}, got {name[:64]!a}{hint}"
                raise InvalidArgument(f"detectors[{i}]", want)
            if name in names[:i]:
                raise InvalidArgument(f"detectors[{i}]", f"want each detector once, got {name} again")
        rate = rate or self.calibration.rate
        self.calibration.allowed(rate)
        chosen = names or tuple(self.detectors)
        return Screen(Panel([self.detectors[name] for name in chosen]), self.calibration, rate)

    def watch(self, screen: Screen) -> Watch:
        """Return the model with a screen's detectors, differentiable; the same object for the same detectors."""
        chosen = {detector.name for detector in screen.panel.detectors}
        names = tuple(name for name in self.detectors if name in chosen)
        if names not in self._watches:  # two threads may come here: the first that is done is taken
            panel = Panel([self.detectors[name] for name in names])
            self._watches.setdefault(names, Watch(self._model, panel, self.calibration))
        return self._watches[names]


def built_in(model: Model) -> SafetyNet | None:
    """Return the safety net that is shipped with a model, if any."""
    path = WEIGHTS / f"{model.spec.name}.detectors.safetensors"
    return load_net(path, model) if path.is_file() else None


def load_net(path: Path, model: Model) -> SafetyNet:
    """Load a file of iguana-server calibrate for a model; raises ModelRefused."""
    return SafetyNet(model, calibration.read(path), calibration.digest(path))
