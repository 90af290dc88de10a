"""Models of unlike sizes as one, to forge what fools a model that none of them is (transfer)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from iguana_server.errors import ModelRefused
from iguana_server.models.base import Model, Spec, affine
from iguana_server.models.ensemble import Average, Ensemble
from iguana_server.models.resize import Resize


class Member(nn.Module):
    """A model in an ensemble: pixels in [0, 1] of the ensemble's size, seen whole at its own: [n, C, H, W] to [n, K]."""

    scale: Tensor
    bias: Tensor

    def __init__(self, model: Model, shape: tuple[int, int, int]) -> None:
        """Take the model's network over; `shape` is that of the ensemble's pictures."""
        super().__init__()
        own = model.spec.shape
        self.resize = Resize(shape[1:], own[1:]) if shape != own else nn.Identity()
        for name, tensor in zip(("scale", "bias"), affine(model.spec), strict=True):
            self.register_buffer(name, tensor, persistent=False)
        self.net = model.net

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (nn.Module's)
        x = self.resize(x).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.net(torch.addcmul(self.bias, x, self.scale))
        return logits


def unite(spec: Spec, models: Sequence[Model], device: torch.device, average: Average = "logits") -> Model:
    """One model of several, whose networks it takes over.

    Each is shown the picture, [C, H, W] of `spec`, resized to its own size and normalised in its own way;
    spec's mean and std are not used. Its sha256 is that of the members' sha256, one a line. Raises ModelRefused
    where they are fewer than two, or their channels or classes are not spec's.
    """
    channels = spec.shape[0]
    for own in (model.spec for model in models):
        if own.shape[0] != channels:
            raise ModelRefused(f"{spec.name}: {own.name}: want {channels} channels, got {own.shape[0]}")
        if own.classes != spec.classes:
            raise ModelRefused(
                f"{spec.name}: {own.name}: want the ensemble's {len(spec.classes)} classes in its order,"
                f" got {len(own.classes)}, {', '.join(own.classes[:3])} first"
            )
    spec = replace(spec, mean=(0.0,) * channels, std=(1.0,) * channels)
    digest = hashlib.sha256("".join(f"{model.sha256}\n" for model in models).encode()).hexdigest()
    net = Ensemble((Member(model, spec.shape) for model in models), average)
    return Model(spec, net, sha256=digest, device=device)
