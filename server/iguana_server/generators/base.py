"""A frozen generator: latent codes in, pictures out, gradient in the codes alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iguana_server.synthesis.base import Network, check_common, refuse


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a generator declares. Raises ModelRefused, naming the field, where that contradicts itself."""

    name: str  # [a-z0-9][a-z0-9_.-]{0,63}
    latent: int  # numbers in a code, standard normal
    classes: tuple[str, ...]  # K names where it is conditional; else none
    shape: tuple[int, int, int]  # C, H, W of its pictures
    bucket: int  # rows of the smallest STRICT pass (padding fills it)
    max_batch: int  # most rows of one pass
    description: str
    licence: str
    source: str

    def __post_init__(self) -> None:
        faults = check_common(self.name, self.bucket, self.max_batch)
        if self.latent < 1:
            faults.append(f"latent: want 1 number or more, got {self.latent}")
        if self.shape[0] not in (1, 3) or min(self.shape) < 1:
            faults.append(f"shape: want C of 1 or 3, H, W of 1 or more, got {self.shape}")
        if len(self.classes) == 1:
            faults.append(f"classes: want none, or 2 or more, got {len(self.classes)}")
        refuse(faults)

    @property
    def resize(self) -> int:
        """Pixels: what a file's short side is brought to before the centre is cut out, where pictures come in."""
        return max(self.shape[1:])


class Generator(Network):
    """`net` maps codes [n, latent] (and labels [n] int64 where there are classes) to pixels in [-1, 1].

    `critic`, the discriminator it was trained against, maps pixels in [-1, 1] (and labels) to one logit a row.
    """

    invertible = True

    def __init__(
        self,
        spec: Spec,
        net: nn.Module,
        *,
        sha256: str,
        device: torch.device,
        critic: nn.Module | None = None,
    ) -> None:
        super().__init__(spec.name, spec.bucket, spec.max_batch, net, sha256=sha256, device=device)
        self.spec = spec
        self.critic = None if critic is None else Critic(spec, critic, sha256=sha256, device=device)

    def __call__(self, *columns: Tensor) -> Tensor:
        """Map codes [n, latent] and labels [n] to pixels [n, C, H, W] in [0, 1]; differentiable in the codes."""
        z, label = columns
        pixels: Tensor = self.net(z, label) if self.spec.classes else self.net(z)
        pixels = pixels.mul(0.5).add_(0.5)  # in place where it can be: to take room costs as much as to add
        return pixels.clamp(0, 1) if pixels.requires_grad else pixels.clamp_(0, 1)

    def example(self, n: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Draw normal codes, and labels."""
        z = torch.randn(n, self.spec.latent, generator=rng)
        return z.to(self.device), _labels(self.spec, n, rng).to(self.device)


class Critic(Network):
    """The discriminator of a generator: how real does a picture look to it?"""

    def __init__(self, spec: Spec, net: nn.Module, *, sha256: str, device: torch.device) -> None:
        name = f"{spec.name}/critic"
        super().__init__(name, spec.bucket, spec.max_batch, net, sha256=sha256, device=device)
        self.spec = spec

    def __call__(self, *columns: Tensor) -> Tensor:
        """Map pixels [n, C, H, W] in [0, 1] and labels [n] to logits [n]: above 0 is real."""
        x, label = columns
        pixels = x.mul(2).sub(1)
        logits: Tensor = self.net(pixels, label) if self.spec.classes else self.net(pixels)
        return logits

    def example(self, n: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Draw pictures of noise, and labels."""
        x = torch.rand(n, *self.spec.shape, generator=rng)
        return x.to(self.device), _labels(self.spec, n, rng).to(self.device)


def _labels(spec: Spec, n: int, rng: torch.Generator) -> Tensor:
    return torch.randint(max(1, len(spec.classes)), (n,), generator=rng)
