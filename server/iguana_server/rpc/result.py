"""Results: what became of a sample, and the pixels that were judged."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from iguana.v1 import attack_pb2, image_pb2
from iguana_server.engine.answer import Forged
from iguana_server.models.base import Spec
from iguana_server.rpc import classification
from iguana_server.rpc.diagnosis import diagnosis
from iguana_server.rpc.image import from_floats, from_pixels, largest
from iguana_server.rpc.words import ENDED, OUTCOME

_RESULT_BYTES = 256  # numbers and frame of a result


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How a caller wants its results."""

    on_grid: bool  # pixels on the 8-bit grid
    png: bool  # as files; needs on_grid
    return_clean: bool
    top_k: int

    def largest(self, spec: Spec) -> int:
        """Return the most bytes that a result can take."""
        channels, height, width = spec.shape
        exact = largest(spec.shape)
        wide = exact + 3 * height * width * channels
        images = (exact if self.on_grid else wide) * (1 + self.return_clean)
        return images + 2 * classification.largest(spec.classes, self.top_k) + _RESULT_BYTES


def from_forged(
    forged: Forged, clean: torch.Tensor, spec: Spec, delivery: Delivery, method: str
) -> attack_pb2.AttackResult:
    """Return the answer of a method for a sample, given its clean image [C, H, W] where the forged one lies.

    Raises InternalError where the delivered pixels are not those that were judged, bit for bit.
    """
    result = attack_pb2.AttackResult(
        sample=forged.sample,
        outcome=OUTCOME[forged.outcome],
        ended=ENDED[forged.ended],
        restart=forged.restart,
        forward=forged.forward,
        backward=forged.backward,
        zero_gradients=forged.zero_gradients,
        clean=_image(clean, delivery) if delivery.return_clean else None,
        attack=forged.attack,
        diagnosis=diagnosis(forged, method),
    )
    if torch.isfinite(forged.before).all():
        result.before.CopyFrom(classification.from_logits(forged.before, spec.classes, delivery.top_k))
    if result.outcome == attack_pb2.OUTCOME_FAILED:
        result.reason = "the model gave NaN or infinity, in the logits, the loss or the gradient"
        return result
    result.image.CopyFrom(_image(forged.image, delivery))
    result.after.CopyFrom(classification.from_logits(forged.after, spec.classes, delivery.top_k))
    result.norms.CopyFrom(_norms(_change(forged.image, clean, delivery)))
    result.margin, result.loss, result.step = forged.margin, forged.loss, forged.step
    return result


def _image(pixels: torch.Tensor, delivery: Delivery) -> image_pb2.Image:
    return from_pixels(pixels, png=delivery.png) if delivery.on_grid else from_floats(pixels)


def _change(image: torch.Tensor, clean: torch.Tensor, delivery: Delivery) -> torch.Tensor:
    """Return image - clean in float64; of grey levels as they are, not as float32 has rounded them."""
    if delivery.on_grid:
        return ((image.double() * 255).round() - (clean.double() * 255).round()) / 255
    return image.double() - clean.double()


def _norms(change: torch.Tensor) -> attack_pb2.Norms:
    size = change.abs()
    return attack_pb2.Norms(
        linf=float(size.max()),
        l2=float(size.square().sum().sqrt()),
        l1=float(size.sum()),
        l0=int(size.count_nonzero()),
    )
