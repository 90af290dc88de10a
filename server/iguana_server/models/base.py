"""A frozen classifier: pixels in, logits out, gradient in the pixels alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from iguana_server.errors import ModelRefused
from iguana_server.models.ensemble import Ensemble
from iguana_server.models.fold import fold

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a model declares: its pictures, its classes, its sizes, its origin.

    Raises ModelRefused, naming the field, where the declaration contradicts itself.
    """

    name: str  # [a-z0-9][a-z0-9_.-]{0,63}
    shape: tuple[int, int, int]  # C, H, W the net takes
    classes: tuple[str, ...]  # K names, in logit order
    mean: tuple[float, ...]  # of each channel, in pixel units [0, 1]
    std: tuple[float, ...]
    resize: int  # pixels: a picture's short side before the centre crop to (H, W), bicubic
    bucket: int  # rows of the smallest STRICT pass (padding fills it)
    max_batch: int  # most rows of one pass
    description: str
    licence: str
    source: str

    def __post_init__(self) -> None:
        c, h, w = self.shape
        faults = {
            f"name: want {NAME.pattern}, got {self.name!r}": not NAME.fullmatch(self.name),
            f"shape: want C, H, W of 1 or more, got {self.shape}": min(c, h, w) < 1,
            f"classes: want 2 or more, got {len(self.classes)}": len(self.classes) < 2,
            f"mean: want {c} values in [0, 1], got {self.mean}": len(self.mean) != c
            or not all(0 <= m <= 1 for m in self.mean),
            f"std: want {c} values in (0, 10], got {self.std}": len(self.std) != c
            or not all(0 < s <= 10 for s in self.std),
            f"resize: want {max(h, w)} pixels or more, got {self.resize}": self.resize < max(h, w),
            f"bucket: want 1 row or more, got {self.bucket}": self.bucket < 1,
            f"max_batch: want the bucket's {self.bucket} rows or more, got {self.max_batch}": self.max_batch
            < self.bucket,
        }
        said = [fault for fault, wrong in faults.items() if wrong]
        if said:
            raise ModelRefused("; ".join(said))


class Model:
    """A classifier frozen on its device: eval mode, no weight gradients, BatchNorm folded, channels_last.

    `sha256` is that of the weights file. `net` takes normalised pixels; it is taken over, not copied.
    `sizes` are the rows that a STRICT pass may have, ascending from the bucket: in all of them a row has the
    same bits. Others than the bucket are for the probe to add.
    """

    memory_format = torch.channels_last

    def __init__(self, spec: Spec, net: nn.Module, *, sha256: str, device: torch.device) -> None:
        self.spec, self.sha256, self.device = spec, sha256, device
        self.sizes: tuple[int, ...] = (spec.bucket,)
        net = fold(net.eval()).eval().requires_grad_(False)
        self.net = net.to(device=device, memory_format=self.memory_format)  # type: ignore[call-overload]
        self._scale, self._bias = (tensor.to(device) for tensor in affine(spec))

    def __call__(self, x: Tensor) -> Tensor:
        """Map pixels in [0, 1], float32 [n, C, H, W], to logits [n, K]; differentiable in x.

        The gradient in x comes in whatever memory format the convolutions left it.
        """
        logits: Tensor = self.net(self._normalise(x))
        return logits

    @property
    def features(self) -> int:
        """Numbers in the features of a picture: what the last linear layer takes in; 0 where they cannot be seen.

        Only a network whose last layer is a Linear of an nn.Sequential shows them, and an Ensemble, whose last
        layer is the mean of its members' logits: their features are those, one member after another.
        """
        if self.members:
            return self.members * len(self.spec.classes)
        return self.net[-1].in_features if self._shows_features() else 0

    @property
    def members(self) -> int:
        """Networks in the ensemble; 0 where it is none."""
        return len(self.net.members) if isinstance(self.net, Ensemble) else 0

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map pixels to logits [n, K], the bits of a call, and features [n, self.features]."""
        if isinstance(self.net, Ensemble):
            each = self.net.each(self._normalise(x))
            return self.net.join(each), torch.cat(each, 1)
        if not self._shows_features():
            return self(x), x.new_empty(len(x), 0)
        features: Tensor = self.net[:-1](self._normalise(x))
        return self.net[-1](features), features

    def _shows_features(self) -> bool:
        plain = isinstance(self.net, nn.Sequential) and type(self.net).forward is nn.Sequential.forward
        return plain and isinstance(self.net[-1], nn.Linear)

    def _normalise(self, x: Tensor) -> Tensor:
        return torch.addcmul(self._bias, x.contiguous(memory_format=self.memory_format), self._scale)


def affine(spec: Spec) -> tuple[Tensor, Tensor]:
    """Scale and bias [1, C, 1, 1], float32, that normalise pixels in [0, 1]: (x - mean) / std = scale x + bias."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (spec.mean, spec.std))
    return (1 / std).float(), (-mean / std).float()


Loader: TypeAlias = Callable[[torch.device], Model]
