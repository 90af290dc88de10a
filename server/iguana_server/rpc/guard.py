"""Guards: detectors in front of an answer, and what they say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from iguana.v1 import verdict_pb2
from iguana_server.detectors.net import SafetyNet, Screen, Verdict
from iguana_server.engine.answer import Looked
from iguana_server.errors import InternalError, InvalidArgument
from iguana_server.rpc.faults import Faults, number

_VERDICT_BYTES, _MARK_BYTES = 128, 64  # at most, without names
_REASON_BYTES = 96  # of a mark, at most, without its name


def to_screen(guard: verdict_pb2.Guard, net: SafetyNet | None, model: str, faults: Faults) -> Screen | None:
    """Read a guard, or note why there is none."""
    if net is None:
        faults.add("guard", "a model that has detectors (ListModels tells)", model)
        return None
    try:
        return net.screen(guard.detectors, guard.false_positive_rate)
    except InvalidArgument as refusal:
        for field, description in refusal.violations:
            faults.say(f"guard.{field}", description)
        return None


@torch.inference_mode()
def judge(screen: Screen, image: torch.Tensor, looked: Sequence[Looked]) -> Verdict:
    """Judge an image [C, H, W] by what the model said of it and of its views, in the order of the screen.

    Raises InternalError where a score is no number: what cannot be judged does not pass.
    """
    logits = torch.stack([one.logits for one in looked]).unsqueeze(0)
    scores = screen.panel.scores(image.unsqueeze(0), logits, looked[0].features.unsqueeze(0))
    found = {name: float(score) for name, score in scores.items()}
    if odd := [name for name, score in found.items() if not math.isfinite(score)]:
        raise InternalError(f"detectors: want finite scores, got NaN or infinity of {', '.join(odd)}")
    return screen.judge(found)


def from_verdict(verdict: Verdict) -> verdict_pb2.Verdict:
    """Write a verdict."""
    return verdict_pb2.Verdict(
        flagged=verdict.flagged,
        p_value=verdict.p_value,
        false_positive_rate=verdict.rate,
        marks=(
            verdict_pb2.Mark(
                detector=mark.detector,
                score=mark.score,
                threshold=mark.threshold,
                flagged=mark.flagged,
                p_value=mark.p_value,
            )
            for mark in verdict.marks
        ),
    )


def reason(verdict: Verdict) -> str:
    """Say why a picture was flagged: the p-value of all, and each detector whose own threshold it has passed."""
    said = [f"detectors: want a p-value above {verdict.rate:g}, got {verdict.p_value:.2g}"]
    said += [
        f"{mark.detector}: want a score of at most {number(mark.threshold)}, got {number(mark.score)}"
        for mark in verdict.marks
        if mark.flagged
    ]
    return "; ".join(said)


def largest(screen: Screen) -> int:
    """Return the most bytes that a verdict and its reason can take."""
    names = [len(detector.name) for detector in screen.panel.detectors]
    return _VERDICT_BYTES + sum(_MARK_BYTES + _REASON_BYTES + 2 * name for name in names)
