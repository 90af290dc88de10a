"""A frozen translator: pictures in, pictures out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iguana_server.synthesis.base import Network, check_common, refuse

_ALONE = 48  # pixels: side of the pictures by which a network is probed whose passes have one row


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a translator declares. Raises ModelRefused, naming the field, where that contradicts itself."""

    name: str  # [a-z0-9][a-z0-9_.-]{0,63}
    channels: tuple[int, int]  # of the pictures that go in and come out: 1 (grey) or 3 (RGB)
    scale: int  # pixels that come out for one that goes in, along a side
    multiple: (
        int  # of which the network wants the sides to be; other pictures are padded by reflection and cut
    )
    span: tuple[float, float]  # what black and white are to the network, going in and coming out
    side: int  # pixels of the square that the probe looks at: the tile, or what a whole picture mostly has
    overlap: (
        int  # pixels by which a tile goes beyond what is kept of it, on each side; 0: pictures stay whole
    )
    least: int = 16  # pixels: the shortest side that a picture may have
    styles: tuple[str, ...] = ()  # that a caller may mix; none: the network has one way to go
    bucket: int  # rows of the smallest STRICT pass of squares of `side` (padding fills it)
    max_batch: int  # most rows of one pass
    description: str
    licence: str
    source: str

    def __post_init__(self) -> None:
        faults = check_common(self.name, self.bucket, self.max_batch)
        if not all(c in (1, 3) for c in self.channels):
            faults.append(f"channels: want 1 or 3, twice, got {self.channels}")
        for field in ("scale", "multiple", "least"):
            if getattr(self, field) < 1:
                faults.append(f"{field}: want 1 or more, got {getattr(self, field)}")
        if self.span[0] >= self.span[1]:
            faults.append(f"span: want black below white, got {self.span}")
        if self.side < 1 or self.side % self.multiple:
            faults.append(f"side: want a multiple of {self.multiple}, got {self.side}")
        if not 0 <= 2 * self.overlap < self.side:
            faults.append(
                f"overlap: want 0 or more, less than half of the side {self.side}, got {self.overlap}"
            )
        refuse(faults)


class Translator(Network):
    """`net` maps pixels [n, C, H, W] within `spec.span` (and weights of the styles [n, S]) to pixels of the span."""

    def __init__(self, spec: Spec, net: nn.Module, *, sha256: str, device: torch.device) -> None:
        super().__init__(spec.name, spec.bucket, spec.max_batch, net, sha256=sha256, device=device)
        self.spec = spec

    def __call__(self, *columns: Tensor) -> Tensor:
        """Map pixels [n, C, H, W] in [0, 1], of sides that the multiple divides, and style weights [n, S].

        Returns [n, C', scale H, scale W] in [0, 1].
        """
        x, style = columns
        low, high = self.spec.span
        x = x.mul(high - low).add_(low)
        y: Tensor = self.net(x, style) if self.spec.styles else self.net(x)
        return y.sub(low).div_(high - low).clamp_(0, 1)

    def example(self, n: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Draw pictures of noise and mixtures of styles: side x side, but where no two share a pass, small ones."""
        side, styles = self.spec.side, len(self.spec.styles)
        if self.bucket == 1:
            side = min(side, -(-_ALONE // self.spec.multiple) * self.spec.multiple)
        x = torch.rand(n, self.spec.channels[0], side, side, generator=rng)
        style = torch.rand(n, styles, generator=rng)
        style /= style.sum(1, keepdim=True).clamp_min(1e-9)
        return x.to(self.device), style.to(self.device)
