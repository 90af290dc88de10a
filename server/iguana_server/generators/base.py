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


class Generator(Network):
    """`net` maps codes [n, latent] (and labels [n] int64 where there are classes) to pixels in [-1, 1].

    `critic`, the discriminator it was trained against, maps pixels in [-1, 1] (and labels) to one logit a row.
    """

    kind = "generator"

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
        self.critic = None if critic is None else critic.eval().requires_grad_(False).to(device)

    def __call__(self, *columns: Tensor) -> Tensor:
        """Map codes [n, latent] and labels [n] to pixels [n, C, H, W] in [0, 1]; differentiable in the codes."""
        z, label = columns
        pixels: Tensor = self.net(z, label) if self.spec.classes else self.net(z)
        return pixels.add(1).mul(0.5).clamp(0, 1)

    def score(self, x: Tensor, label: Tensor) -> Tensor:
        """Return the discriminator's logit, [n], of pixels [n, C, H, W] in [0, 1]: above 0 is real."""
        assert self.critic is not None  # noqa: S101 - the callers see to it
        pixels = x.mul(2).sub(1)
        logits: Tensor = self.critic(pixels, label) if self.spec.classes else self.critic(pixels)
        return logits

    def example(self, n: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Draw normal codes, and labels."""
        z = torch.randn(n, self.spec.latent, generator=rng)
        label = torch.randint(max(1, len(self.spec.classes)), (n,), generator=rng)
        return z.to(self.device), label.to(self.device)
