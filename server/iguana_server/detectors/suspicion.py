"""Suspicion: what several scores come to together, as a slope that an attack can descend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from iguana_server.detectors.calibration import Calibration

_KNOTS = 128
_SLACK = 1e-3  # nats: what float32 may lose of a sum


class Suspicion:
    """Fisher's sum of -log p over detectors (Calibration.joint), made piecewise linear in each score.

    It is never below the sum by which a picture is judged, so that what stays under `limit` is not flagged. Below
    all clean scores it is flat, above them it goes on with the slope of their upper half.
    """

    def __init__(self, calibration: Calibration, names: Sequence[str]) -> None:
        """Of these detectors, in nats."""
        self._calibration, self._names = calibration, tuple(names)
        self._curves = {name: _curve(calibration, name) for name in names}

    def __call__(self, scores: Mapping[str, Tensor]) -> Tensor:
        """[n] suspicion of the scores [n], by detector; differentiable."""
        return torch.stack([_interpolated(*self._curves[name], scores[name]) for name in self._names]).sum(0)

    def limit(self, rate: float) -> float:
        """Return the most suspicion with which a picture is never flagged at a rate. Raises InvalidArgument."""
        known = self._calibration
        logs = _logs(known.pictures)
        clean = np.sort(sum(logs[known.ranks[name]] for name in self._names))
        return float(clean[-known.allowed(rate)]) - _SLACK


def _logs(n: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """[n + 1] -log p of a score that so many of n clean ones lie below."""
    made: np.ndarray[tuple[int], np.dtype[np.float64]] = np.log((n + 1) / np.arange(n + 1, 0, -1))
    return made


def _curve(calibration: Calibration, name: str) -> tuple[Tensor, Tensor, float]:
    """Knots of one detector: scores ascending, their suspicion, and the slope beyond them.

    They are evenly spaced in suspicion; each has that of the next, so that no score between is underrated.
    """
    ordered, n = calibration.ordered[name], calibration.pictures
    logs = _logs(n)
    levels = np.linspace(0, logs[n], _KNOTS)
    below = np.unique(np.minimum(np.round((n + 1) * -np.expm1(-levels)).astype(int), n - 1))
    below = np.unique(np.append(below, n - 1))
    places = ordered[below]
    last = np.append(np.diff(places) > 0, True)  # of equal scores
    below, places = below[last], places[last]
    heights = np.append(logs[below[1:]], logs[n])
    middle = float(np.median(ordered))
    upper = max(float(places[-1]) - middle, float(np.finfo(np.float32).tiny))
    slope = (math.log(n + 1) - math.log(2)) / upper
    return torch.from_numpy(places.copy()), torch.from_numpy(heights).float(), slope


def _interpolated(places: Tensor, heights: Tensor, slope: float, score: Tensor) -> Tensor:
    """[n] the height at scores [n]; NaN for NaN."""
    if len(places) == 1:
        return heights[0] + slope * (score - places[0]).relu()
    i = (torch.searchsorted(places, score.detach().contiguous()) - 1).clamp(0, len(places) - 2)
    low, high = places[i], places[i + 1]
    share = ((score - low) / (high - low)).clamp(0, 1)
    inside = heights[i] + share * (heights[i + 1] - heights[i])
    return inside + slope * (score - places[-1]).relu()
