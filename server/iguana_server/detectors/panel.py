"""Detectors that look at a picture together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iguana_server.detectors.base import Detector, Evidence
from iguana_server.models.base import Model


class Panel:
    """Some detectors that look at pictures together: their views lie one after another."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        """Take the detectors, at least one."""
        self.detectors = tuple(detectors)
        self.looks = sum(detector.looks for detector in detectors)
        self.needs_features = any(detector.needs_features for detector in detectors)

    def views(self, x: Tensor) -> Tensor:
        """All views: [n, C, H, W] to [n, looks, C, H, W]."""
        return torch.cat([detector.views(x) for detector in self.detectors], 1)

    def scores(self, images: Tensor, logits: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Score n pictures: images [n, C, H, W], logits [n, 1 + looks, K] of each and its views, features [n, F]."""
        scores: dict[str, Tensor] = {}
        at = 1
        for detector in self.detectors:
            views = logits[:, at : at + detector.looks]
            at += detector.looks
            scores[detector.name] = detector.score(Evidence(images, logits[:, 0], views, features))
        return scores

    @torch.inference_mode()
    def examine(self, model: Model, images: Tensor) -> dict[str, Tensor]:
        """Score pictures [n, C, H, W] with a model at hand: [n] by detector."""
        found: list[dict[str, Tensor]] = []
        rows = max(1, model.spec.max_batch // (1 + self.looks))
        for x in torch.split(images, rows):
            whole = torch.cat([x[:, None], self.views(x)], 1).flatten(0, 1)
            seen = [model.look(part.to(model.device)) for part in torch.split(whole, model.spec.max_batch)]
            logits = torch.cat([one.cpu() for one, _ in seen])
            logits = logits.view(len(x), 1 + self.looks, -1)
            features = torch.cat([one.cpu() for _, one in seen])[:: 1 + self.looks]
            found.append(self.scores(x, logits, features))
        return {
            detector.name: torch.cat([one[detector.name] for one in found]) for detector in self.detectors
        }
