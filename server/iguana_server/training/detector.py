"""Fit detectors to clean pictures, and calibrate them on other clean pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iguana_server.detectors.base import Clean
from iguana_server.detectors.calibration import Calibration
from iguana_server.detectors.catalog import available
from iguana_server.detectors.net import Panel
from iguana_server.errors import ModelRefused
from iguana_server.models.base import Model


def calibrate(
    model: Model,
    clean: Tensor,
    *,
    data: str,
    rate: float,
    fit_on: tuple[Tensor, Tensor] | None = None,
    names: Sequence[str] = (),
) -> Calibration:
    """Calibrate detectors (none named: all that can be) on clean pictures [n, C, H, W] in [0, 1].

    Those that are fitted are fitted to fit_on: other pictures and their labels [m] int64. Without it, or where the
    model does not show its features, they cannot be. Raises ModelRefused where one is named that cannot be, or
    the model's scores are not finite.
    """
    features: Tensor | None = None
    if fit_on is not None and model.features:
        features = features_of(model, fit_on[0])
    found, states = [], {}
    for name, detector in available().items():
        if names and name not in names:
            continue
        state: dict[str, Tensor] = {}
        if detector.fitted():
            if features is None or fit_on is None:
                if name in names:
                    raise ModelRefused(
                        f"{model.spec.name}: {name}: want labelled pictures and features, got none"
                    )
                continue
            state = detector.fit(Clean(features, fit_on[1], len(model.spec.classes)))
        found.append(detector(model.spec, state))
        states[name] = state
    scores = Panel(found).examine(model, clean)
    return Calibration(
        model=model.spec.name,
        model_sha256=model.sha256,
        data=data,
        rate=rate,
        scores={name: column.float().numpy() for name, column in scores.items()},
        states=states,
    )


@torch.inference_mode()
def features_of(model: Model, images: Tensor) -> Tensor:
    """The features of pictures: [n, F]."""
    parts = torch.split(images, model.spec.max_batch)
    return torch.cat([model.look(part.to(model.device))[1].cpu() for part in parts])
