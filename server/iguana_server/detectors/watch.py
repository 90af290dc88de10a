"""A model under watch: what it says of a picture, and what its detectors make of that, in one graph."""

from __future__ import annotations

import torch
from torch import Tensor

from iguana_server.detectors.calibration import Calibration
from iguana_server.detectors.panel import Panel
from iguana_server.detectors.suspicion import Suspicion
from iguana_server.models.base import Model


class Watch:
    """Differentiable from the pixels to the suspicion, roundings by their straight-through gradient.

    The scores are those of Detect, bit for bit in STRICT: the model sees pictures and views in passes of the same
    sizes, and all else is done picture by picture.
    """

    def __init__(self, model: Model, panel: Panel, calibration: Calibration) -> None:
        """Watch a model with these detectors."""
        self._model, self._panel = model, panel
        self._suspicion = Suspicion(calibration, [detector.name for detector in panel.detectors])
        self.looks = 1 + panel.looks  # of the model, at a picture
        spec = model.spec
        self.max_batch = max(spec.bucket, spec.max_batch // self.looks)  # as much memory as plain passes take
        self.sizes = tuple(size for size in model.sizes if size <= self.max_batch)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map pixels [n, C, H, W] to logits [n, K] and suspicion [n] in nats."""
        logits, features = self._model.look(x)
        seen = [logits]
        views = torch.stack([self._panel.views(image.unsqueeze(0))[0] for image in x])
        seen += [self._model(view) for view in views.unbind(1)]
        lines = torch.stack(seen, 1)
        one_by_one = zip(*(torch.split(whole, 1) for whole in (x, lines, features)), strict=True)
        suspicion = [self._suspicion(self._panel.scores(*(part.cpu() for part in row))) for row in one_by_one]
        return logits, torch.cat(suspicion).to(x.device)

    def limit(self, rate: float) -> float:
        """Return the most suspicion with which a picture is never flagged at a rate. Raises InvalidArgument."""
        return self._suspicion.limit(rate)
